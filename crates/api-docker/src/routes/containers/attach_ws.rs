//! `GET /containers/{id}/attach/ws`: the raw stream of an attach as messages of a WebSocket.

use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Extension, Path, State};
use axum::response::Response;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::attach::session;
use crate::error::Result;
use crate::extract::Query;
use crate::state::DockerApi;
use crate::stream::Format;
use crate::version::ApiVersion;

/// Bytes on their way between the socket and the stream.
const ROOM: usize = 64 << 10;

pub(super) async fn attach_ws(
    State(api): State<DockerApi>,
    Path(id): Path<String>,
    Extension(version): Extension<ApiVersion>,
    q: Query,
    ws: WebSocketUpgrade,
) -> Result<Response> {
    let session = session(api, &id, &q, Some(Format::Raw)).await?;
    let binary = version.at_least(28);
    Ok(ws.on_upgrade(move |socket| async move {
        let (ours, theirs) = tokio::io::duplex(ROOM);
        let (read, write) = tokio::io::split(theirs);
        tokio::join!(
            session.run(Box::new(read), Box::new(write)),
            carry(socket, ours, binary)
        );
    }))
}

/// Copies between the socket and the stream until the stream ends or the client leaves.
async fn carry(socket: WebSocket, stream: tokio::io::DuplexStream, binary: bool) {
    let (mut to_client, mut from_client) = socket.split();
    let (mut read, mut write) = tokio::io::split(stream);
    let output = async {
        let mut buf = vec![0u8; ROOM / 2];
        while let Ok(n) = read.read(&mut buf).await {
            if n == 0 {
                break;
            }
            let message = match binary {
                true => Message::Binary(buf[..n].to_vec().into()),
                // Clients this old take text only.
                false => Message::Text(String::from_utf8_lossy(&buf[..n]).into_owned().into()),
            };
            if to_client.send(message).await.is_err() {
                return;
            }
        }
        let _ = to_client.send(Message::Close(None)).await;
    };
    let input = async {
        while let Some(Ok(message)) = from_client.next().await {
            let sent = match message {
                Message::Binary(bytes) => write.write_all(&bytes).await,
                Message::Text(text) => write.write_all(text.as_bytes()).await,
                Message::Close(_) => break,
                Message::Ping(_) | Message::Pong(_) => Ok(()),
            };
            if sent.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = output => {}
        () = input => {}
    }
}

//! `biga image load`, `save` and `import`.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use biga_client::node::{ArchiveFormat, ImportFormat};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio_util::io::ReaderStream;

use super::push::Shown;
use crate::context::{Context, familiar};
use crate::exit::{Code, fail};
use crate::output::{line, note};

/// Arguments of `image load`.
#[derive(Debug, clap::Args)]
pub struct LoadArgs {
    /// Archive, or directory with an OCI layout; standard input where left out
    #[arg(short = 'i', long, value_name = "PATH")]
    input: Option<PathBuf>,
}

/// Arguments of `image save`.
#[derive(Debug, clap::Args)]
pub struct SaveArgs {
    /// Archive, or with --format oci-dir a new directory; standard output where left out
    #[arg(short = 'o', long = "output", value_name = "PATH")]
    file: Option<PathBuf>,
    /// Form of the archive
    #[arg(long, value_name = "FORMAT", default_value = "docker", value_parser = ["docker", "oci", "oci-dir"])]
    format: String,
    /// The images
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

/// Arguments of `image import`. The name goes to standard output, the image's id to standard error.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Config of the image: a JSON file in the form of an OCI image config, or of its "config" part
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// What the file is; seen from its first bytes where left out
    #[arg(long, value_name = "FORMAT", value_parser = ["rootfs", "raw", "qcow2"])]
    format: Option<String>,
    /// Tar of a root file system (plain, gzip, bzip2, xz or zstd), or a disk; "-" is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Name of the image
    #[arg(value_name = "NAME")]
    name: String,
}

/// Pieces in which files are sent.
const PIECE: usize = 256 << 10;

type Input = Box<dyn AsyncRead + Send + Sync + Unpin>;

async fn open(path: Option<&Path>) -> anyhow::Result<Input> {
    match path {
        Some(p) if p != Path::new("-") => {
            let f = tokio::fs::File::open(p)
                .await
                .map_err(|e| fail(Code::FAILED, format!("cannot open {}: {e}", p.display())))?;
            Ok(Box::new(f))
        }
        _ if crate::term::stdin_is_terminal() => Err(fail(
            Code::USAGE,
            "standard input is a terminal: name a file, or send one with <",
        )),
        _ => Ok(Box::new(tokio::io::stdin())),
    }
}

fn pieces(input: Input) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    ReaderStream::with_capacity(input, PIECE)
}

/// `load`.
pub async fn load(cx: &Context, args: LoadArgs) -> anyhow::Result<Code> {
    let directory = args.input.as_ref().filter(|p| p.is_dir()).cloned();
    let input = match directory.clone() {
        Some(dir) => pack(dir),
        None => open(args.input.as_deref()).await?,
    };
    let mut shown = Shown::default();
    let result = cx.client.image_load(pieces(input), |p| shown.show(p)).await?;
    drop(shown);
    result.images.iter().try_for_each(|i| line(familiar(&i.reference)))?;
    Ok(Code::OK)
}

/// A directory as the archive that it would be. Where it cannot be packed, the archive breaks off with the reason.
fn pack(dir: PathBuf) -> Input {
    let (reader, writer) = tokio::io::duplex(PIECE);
    let writer = tokio_util::io::SyncIoBridge::new(writer);
    let packing = tokio::task::spawn_blocking(move || {
        let mut out = std::io::BufWriter::with_capacity(PIECE, writer);
        biga_image::layout_dir::pack(&dir, &mut out).map_err(io::Error::other)?;
        std::io::Write::flush(&mut out)
    });
    let packed = futures_util::stream::once(async move {
        match packing.await {
            Ok(Ok(())) => Ok(Bytes::new()),
            Ok(Err(e)) => Err(e),
            Err(e) => Err(io::Error::other(e)),
        }
    });
    let bytes = ReaderStream::with_capacity(reader, PIECE).chain(packed);
    Box::new(tokio_util::io::StreamReader::new(Box::pin(bytes)))
}

/// Lays an archive out in a directory.
async fn unpack(dir: PathBuf, bytes: biga_client::ByteStream) -> anyhow::Result<()> {
    let bytes = bytes.map(|b| b.map_err(io::Error::other));
    let reader = tokio_util::io::SyncIoBridge::new(tokio_util::io::StreamReader::new(Box::pin(bytes)));
    tokio::task::spawn_blocking(move || biga_image::layout_dir::unpack(reader, &dir)).await??;
    Ok(())
}

/// `save`.
pub async fn save(cx: &Context, args: SaveArgs) -> anyhow::Result<Code> {
    if args.format != "oci-dir" {
        check_output(args.file.as_deref())?;
    }
    let mut references = Vec::new();
    for name in &args.images {
        references.push(cx.image(name).await?.spec.reference);
    }
    let format = match args.format.as_str() {
        "docker" => ArchiveFormat::Docker,
        _ => ArchiveFormat::Oci,
    };
    let bytes = cx.client.image_save(&references, format).await?;
    if args.format == "oci-dir" {
        let dir = args
            .file
            .ok_or_else(|| fail(Code::USAGE, "--format oci-dir needs a directory: name it with -o"))?;
        unpack(dir, bytes).await?;
        return Ok(Code::OK);
    }
    write_out(args.file.as_deref(), bytes).await?;
    Ok(Code::OK)
}

/// Refuses to send an archive to a terminal.
pub fn check_output(file: Option<&Path>) -> anyhow::Result<()> {
    use std::io::IsTerminal;
    if file.is_none() && std::io::stdout().is_terminal() {
        return Err(fail(
            Code::USAGE,
            "standard output is a terminal: name a file with -o, or send it on with >",
        ));
    }
    Ok(())
}

/// Writes an archive to a file, or to standard output.
pub async fn write_out(file: Option<&Path>, mut bytes: biga_client::ByteStream) -> anyhow::Result<()> {
    let Some(path) = file else {
        let mut out = tokio::io::stdout();
        while let Some(b) = bytes.next().await {
            out.write_all(&b?).await?;
        }
        return Ok(out.flush().await?);
    };
    // A half-written archive never stands under the name that was asked for.
    let part = path.with_added_extension("part");
    if let Err(e) = write(&part, bytes).await {
        let _ = tokio::fs::remove_file(&part).await;
        return Err(e);
    }
    Ok(tokio::fs::rename(&part, path).await?)
}

async fn write(path: &Path, mut bytes: biga_client::ByteStream) -> anyhow::Result<()> {
    let cannot = |e: io::Error| fail(Code::FAILED, format!("cannot write {}: {e}", path.display()));
    let mut f = tokio::fs::File::create(path).await.map_err(cannot)?;
    while let Some(b) = bytes.next().await {
        f.write_all(&b?).await.map_err(cannot)?;
    }
    f.flush().await.map_err(cannot)
}

/// `import`.
pub async fn import(cx: &Context, args: ImportArgs) -> anyhow::Result<Code> {
    args.name
        .parse::<biga_model::Reference>()
        .map_err(|e| fail(Code::USAGE, e))?;
    let mut input = open(Some(&args.file)).await?;
    let mut head = vec![0; 512];
    let mut have = 0;
    while have < head.len() {
        match input.read(&mut head[have..]).await? {
            0 => break,
            n => have += n,
        }
    }
    head.truncate(have);
    let format = match args.format.as_deref() {
        Some("rootfs") => ImportFormat::Rootfs,
        Some("raw") => ImportFormat::Raw,
        Some(_) => ImportFormat::Qcow2,
        None => guess(&head).ok_or_else(|| {
            let file = args.file.display();
            fail(
                Code::USAGE,
                format!("{file} is neither a tar nor a qcow2 disk: say what it is with --format"),
            )
        })?,
    };
    let config = args.config.as_deref().map(read_config).transpose()?;
    if config.is_some() && format != ImportFormat::Rootfs {
        return Err(fail(
            Code::USAGE,
            "--config is only for a root file system: a disk has none",
        ));
    }
    let first = futures_util::stream::iter([Ok(Bytes::from(head))]);
    let mut shown = Shown::default();
    let result = cx
        .client
        .image_import(&args.name, format, config.as_deref(), first.chain(pieces(input)), |p| {
            shown.show(p);
        })
        .await?;
    drop(shown);
    if let Some(i) = result.images.first() {
        note(&i.image_id);
    }
    line(familiar(&args.name))?;
    Ok(Code::OK)
}

fn read_config(path: &Path) -> anyhow::Result<String> {
    let cannot = |e: String| fail(Code::USAGE, format!("--config {}: {e}", path.display()));
    let text = std::fs::read(path).map_err(|e| cannot(e.to_string()))?;
    let v: serde_json::Value = serde_json::from_slice(&text).map_err(|e| cannot(e.to_string()))?;
    if !v.is_object() {
        return Err(cannot("is no JSON object".into()));
    }
    // A whole image config holds it as one of its parts.
    let part = v.get("config").filter(|c| c.is_object()).unwrap_or(&v);
    Ok(base64::engine::general_purpose::STANDARD.encode(part.to_string()))
}

/// What the first bytes of a file say. A raw disk cannot be told from anything else, so it is never guessed.
fn guess(head: &[u8]) -> Option<ImportFormat> {
    const GZIP: &[u8] = &[0x1f, 0x8b];
    const ZSTD: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    if head.starts_with(b"QFI\xfb") {
        return Some(ImportFormat::Qcow2);
    }
    let tar = head.get(257..262) == Some(b"ustar");
    (tar || head.starts_with(GZIP) || head.starts_with(ZSTD)).then_some(ImportFormat::Rootfs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_known_by_their_first_bytes() {
        let mut tar = vec![0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(guess(&tar), Some(ImportFormat::Rootfs));
        assert_eq!(guess(b"QFI\xfb\0\0\0\x03"), Some(ImportFormat::Qcow2));
        assert_eq!(guess(&[0x1f, 0x8b, 8]), Some(ImportFormat::Rootfs));
        assert_eq!(guess(&[0; 512]), None);
        assert_eq!(guess(b""), None);
    }
}

//! The messages of BuildKit's interface that are used here, with the fields that are used. Fields that are left out are skipped
//! when read.

pub mod control;
pub mod gateway;
pub mod session;

/// A point in time.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Timestamp {
    /// Since 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Below a second.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Timestamp {
    /// This moment.
    pub fn now() -> Timestamp {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.unwrap_or_default();
        Timestamp {
            seconds: i64::try_from(now.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(now.subsec_nanos()).unwrap_or(0),
        }
    }
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Any {
    /// What `value` is.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// Encoded.
    #[prost(bytes = "vec", tag = "2")]
    pub value: Vec<u8>,
}

/// `google.rpc.Status`: an error with its details.
#[derive(Clone, PartialEq, prost::Message)]
pub struct RpcStatus {
    /// A code of gRPC.
    #[prost(int32, tag = "1")]
    pub code: i32,
    /// For people.
    #[prost(string, tag = "2")]
    pub message: String,
    /// For clients that know them.
    #[prost(message, repeated, tag = "3")]
    pub details: Vec<Any>,
}

/// `pb.Platform`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Platform {
    /// As `amd64`.
    #[prost(string, tag = "1")]
    pub architecture: String,
    /// As `linux`.
    #[prost(string, tag = "2")]
    pub os: String,
    /// As `v8`.
    #[prost(string, tag = "3")]
    pub variant: String,
}

/// Without fields.
#[derive(Clone, Copy, PartialEq, prost::Message)]
pub struct Empty {}

/// A piece of a stream.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BytesMessage {
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub data: bytes::Bytes,
}

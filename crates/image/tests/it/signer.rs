//! Signs images as cosign does, and puts documents into registries by hand.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use base64::Engine;
use rcgen::{KeyPair, PublicKeyData, SigningKey};

use crate::fake::MANIFEST;
use crate::support::sha;

pub const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
pub const SIGNATURE_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The text that is signed.
pub fn payload(identity: &str, digest: &str) -> Vec<u8> {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"{identity}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
    )
    .into_bytes()
}

/// A key pair whose public half lies in a file.
pub struct Signer(pub KeyPair);

impl Signer {
    pub fn new(algorithm: &'static rcgen::SignatureAlgorithm, public: &Path) -> Signer {
        let pair = KeyPair::generate_for(algorithm).unwrap();
        std::fs::write(public, pem(&pair.subject_public_key_info())).unwrap();
        Signer(pair)
    }

    pub fn sign(&self, text: &[u8]) -> Vec<u8> {
        self.0.sign(text).unwrap()
    }
}

fn pem(spki: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(spki);
    format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n")
}

/// A manifest that says something about another, with its blobs.
#[derive(Clone)]
pub struct Artifact {
    pub manifest: Vec<u8>,
    pub blobs: Vec<Vec<u8>>,
}

/// A manifest of one signature.
pub fn signature(text: &[u8], signature: &[u8], subject: Option<(&str, usize)>) -> Artifact {
    let encoded = base64::engine::general_purpose::STANDARD.encode(signature);
    artifact(
        text,
        SIMPLE_SIGNING,
        &format!(r#","annotations":{{"dev.cosignproject.cosign/signature":"{encoded}"}}"#),
        SIGNATURE_TYPE,
        subject,
    )
}

/// A manifest of one document.
pub fn artifact(
    content: &[u8],
    kind: &str,
    more: &str,
    artifact_type: &str,
    subject: Option<(&str, usize)>,
) -> Artifact {
    let subject = subject.map_or(String::new(), |(digest, size)| {
        format!(r#","subject":{{"mediaType":"{MANIFEST}","digest":"{digest}","size":{size}}}"#)
    });
    let empty = b"{}".to_vec();
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","artifactType":"{artifact_type}","config":{{"mediaType":"{EMPTY}","digest":"{}","size":2}},"layers":[{{"mediaType":"{kind}","digest":"{}","size":{}{more}}}]{subject}}}"#,
        sha(&empty),
        sha(content),
        content.len()
    );
    Artifact {
        manifest: manifest.into_bytes(),
        blobs: vec![empty, content.to_vec()],
    }
}

/// One request over plain HTTP: status, headers and body.
pub fn http(host: &str, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, HashMap<String, String>, Vec<u8>) {
    let mut stream = TcpStream::connect(host).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Type: {kind}\r\nAccept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let headers = head
        .lines()
        .skip(1)
        .filter_map(|l| l.split_once(": "))
        .map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()))
        .collect();
    (status, headers, answer[end + 4..].to_vec())
}

impl Artifact {
    /// Puts it into a registry under a tag or its digest.
    pub fn put(&self, host: &str, repository: &str, name: Option<&str>) {
        for blob in &self.blobs {
            let (status, headers, _) = http(host, "POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
            assert_eq!(status, 202);
            let location = headers["location"].clone();
            let path = location
                .strip_prefix(&format!("http://{host}"))
                .unwrap_or(&location)
                .to_owned();
            let mark = if path.contains('?') { '&' } else { '?' };
            let path = format!("{path}{mark}digest={}", sha(blob));
            let (status, ..) = http(host, "PUT", &path, "application/octet-stream", blob);
            assert_eq!(status, 201);
        }
        let digest = sha(&self.manifest);
        let name = name.unwrap_or(&digest);
        put_manifest(host, repository, name, MANIFEST, &self.manifest);
    }
}

pub fn put_manifest(host: &str, repository: &str, name: &str, kind: &str, bytes: &[u8]) {
    let (status, _, body) = http(host, "PUT", &format!("/v2/{repository}/manifests/{name}"), kind, bytes);
    assert_eq!(status, 201, "{}", String::from_utf8_lossy(&body));
}

/// The tag for things about a manifest.
pub fn tag(digest: &str, suffix: &str) -> String {
    format!("{}{suffix}", digest.replace(':', "-"))
}

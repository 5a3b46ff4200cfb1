//! Signatures in cosign's "simple signing" form: an OCI manifest whose layers are the signed texts, with the signature in
//! an annotation of each. It is found under the tag `sha256-<digits>.sig` or among the referrers of the image.
//!
//! Text: <https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md>. Certificates without a key of one's own
//! ("keyless") are not looked at.

use base64::Engine;
use biga_model::Reference;
use serde::Deserialize;

use super::{Demand, Policy, SignedBy};
use crate::Error;
use crate::record::Verified;
use crate::registry::Repo;
use crate::store::oci::{self, Descriptor, Document, Manifest};

/// Media type of a signed text.
pub(crate) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// Type of a manifest of signatures among referrers.
pub(crate) const SIGNATURE_TYPE: &str = "application/vnd.dev.cosign.artifact.sig.v1+json";
/// Where the signature of a text is.
const ANNOTATION: &str = "dev.cosignproject.cosign/signature";
/// Longest signed text.
const MAX_PAYLOAD: u64 = 64 << 10;
/// Texts that are looked at for one image.
const MAX_SIGNATURES: usize = 64;

/// A text with its signature.
pub(crate) struct Signed {
    pub payload: Vec<u8>,
    pub signature: Vec<u8>,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    #[serde(default)]
    identity: IdentityPart,
    image: ImagePart,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Default, Deserialize)]
struct IdentityPart {
    #[serde(rename = "docker-reference", default)]
    docker_reference: String,
}

#[derive(Deserialize)]
struct ImagePart {
    #[serde(rename = "docker-manifest-digest")]
    docker_manifest_digest: String,
}

/// What kinds of text are about images.
const KINDS: [&str; 2] = ["cosign container image signature", "atomic container signature"];

/// Judges an image that is about to come in: its manifest, and the index it was chosen from, have these digests.
pub(crate) async fn admit(
    policy: &Policy,
    sources: &[Repo<'_>],
    reference: &Reference,
    digests: &[&str],
) -> Result<Vec<Verified>, Error> {
    let wanted = match policy.demand(reference)? {
        Demand::Nothing => return Ok(Vec::new()),
        Demand::Signature(wanted) => wanted,
    };
    let mut count = 0;
    let mut held = Vec::new();
    for digest in digests.iter().filter(|d| !d.is_empty()) {
        let signed = find(sources, digest).await?;
        count += signed.len();
        held.extend(signed.iter().filter_map(|s| check(wanted, s, digest, reference)));
    }
    if !held.is_empty() {
        return Ok(held);
    }
    let why = match count {
        0 => "it is not signed, and must be".to_owned(),
        n => format!("none of its {n} signatures is by a key and for a name that are asked for"),
    };
    Err(policy.refused(reference.familiar(), why))
}

/// What a signature proves, if it is one that is asked for.
pub(crate) fn check(wanted: &SignedBy, signed: &Signed, digest: &str, reference: &Reference) -> Option<Verified> {
    let key = wanted
        .keys
        .iter()
        .find(|k| k.verify(&signed.payload, &signed.signature))?;
    // Read only now: before, it is anybody's text.
    let payload: Payload = serde_json::from_slice(&signed.payload).ok()?;
    let c = payload.critical;
    let fits = c.image.docker_manifest_digest == digest
        && KINDS.contains(&c.kind.as_str())
        && wanted.names(&c.identity.docker_reference, reference);
    fits.then(|| Verified {
        digest: digest.to_owned(),
        identity: c.identity.docker_reference,
        key: key.fingerprint.clone(),
    })
}

/// All signatures of a manifest.
async fn find(sources: &[Repo<'_>], digest: &str) -> Result<Vec<Signed>, Error> {
    let mut all = Vec::new();
    let mut last = Ok(());
    for repo in sources {
        match find_in(repo, digest).await {
            Ok(found) => all.extend(found),
            // A mirror need not have them; only where nobody has any does its failure matter.
            Err(e) => last = Err(e),
        }
        if !all.is_empty() {
            return Ok(all);
        }
    }
    last.map(|()| all)
}

async fn find_in(repo: &Repo<'_>, digest: &str) -> Result<Vec<Signed>, Error> {
    let mut manifests = Vec::new();
    if let Some(got) = repo.manifest_if_there(&tag_of(digest, "sig")).await?
        && let Ok(Document::Manifest(m)) = oci::document(&got.bytes, &got.media_type, "a signature")
    {
        manifests.push(m);
    }
    for d in repo.referrers(digest).await? {
        if manifests.len() >= MAX_SIGNATURES || !may_be_signature(&d) {
            continue;
        }
        let got = repo.manifest(&d.digest).await?;
        if let Ok(Document::Manifest(m)) = oci::document(&got.bytes, &got.media_type, "a signature") {
            manifests.push(m);
        }
    }
    let mut all = Vec::new();
    for (layer, signature) in manifests.iter().flat_map(texts).take(MAX_SIGNATURES) {
        let payload = repo.small_blob(&layer.digest, layer.size, MAX_PAYLOAD).await?.to_vec();
        all.push(Signed { payload, signature });
    }
    Ok(all)
}

/// By its type; where a list has no types, it must be looked at.
fn may_be_signature(d: &Descriptor) -> bool {
    d.artifact_type
        .as_deref()
        .is_none_or(|t| t.is_empty() || t == SIGNATURE_TYPE)
}

/// The signed texts of a manifest, each with its signature.
pub(crate) fn texts(m: &Manifest) -> impl Iterator<Item = (&Descriptor, Vec<u8>)> {
    m.layers
        .iter()
        .filter(|l| l.media_type == SIMPLE_SIGNING)
        .filter_map(|l| {
            let text = l.annotations.get(ANNOTATION)?;
            let signature = base64::engine::general_purpose::STANDARD.decode(text).ok()?;
            Some((l, signature))
        })
}

/// The tag under which things about a manifest are kept where registries cannot list referrers, or as cosign does.
pub(crate) fn tag_of(digest: &str, suffix: &str) -> String {
    let tag = digest.replace(':', "-");
    match suffix {
        "" => tag,
        s => format!("{tag}.{s}"),
    }
}

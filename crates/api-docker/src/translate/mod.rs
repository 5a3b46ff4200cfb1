//! Between Docker's documents and Biga's model. Pure functions: no I/O, no clock but where a parameter says so.

pub mod create;
pub mod devices;
pub mod events;
pub mod health;
pub mod hostconfig;
pub mod ids;
pub mod image;
pub mod inspect;
pub mod labels;
pub mod list;
pub mod log;
pub mod mounts;
pub mod network;
pub mod sharing;
pub mod stats;
pub mod volume;

/// The spelling of an image reference people use; ids stay as they are.
pub fn familiar(reference: &str) -> String {
    if reference.starts_with("sha256:") {
        return reference.to_string();
    }
    reference
        .parse::<biga_model::Reference>()
        .map_or_else(|_| reference.to_string(), |r| r.familiar())
}

/// The annotation with the moment at which Docker's client made a container: an object's own has whole seconds.
pub const CREATED_AT: &str = "docker.biga.dev/created-at";

/// When an instance was made, as precisely as it is known.
pub fn created<K: biga_model::Kind>(o: &biga_model::Object<K>) -> Option<biga_model::Timestamp> {
    let noted = o.metadata.annotations.get(CREATED_AT).and_then(|t| t.parse().ok());
    noted.or(o.metadata.creation_timestamp)
}

/// A moment as Docker writes it; what never was is the zero of Go's clock.
pub fn time(t: Option<biga_model::Timestamp>) -> String {
    t.map_or_else(|| "0001-01-01T00:00:00Z".into(), |t| format!("{t:.9}"))
}

/// The main program of an instance. That of a machine is its serial console: a terminal that takes input.
pub fn main_process(spec: &biga_model::InstanceSpec) -> biga_model::ContainerSpec {
    let console = spec.isolation == biga_model::Isolation::Vm;
    let machine = || biga_model::ContainerSpec {
        tty: console,
        stdin: console,
        ..Default::default()
    };
    spec.containers.first().cloned().unwrap_or_else(machine)
}

/// A name of an image without its tag or digest.
pub fn without_tag(name: &str) -> &str {
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    match name[slash..].find([':', '@']) {
        Some(i) => &name[..slash + i],
        None => name,
    }
}

//! Who gets the lines of an instance's log beside its files: from the words of its spec to what its shim needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use biga_image::ImageRecord;
use biga_model::{Instance, LogDriver, Object, SyslogAddress};
use biga_wire::config::{Sink, SyslogFormat, SyslogTo};

/// Where the journal listens (systemd-journald.service(8)).
const JOURNAL: &str = "/run/systemd/journal/socket";
/// How long a start waits for the address of a name.
const LOOK_UP: Duration = Duration::from_secs(3);
/// Digits of an id where it is short.
const SHORT: usize = 12;

/// The receiver of an instance's lines. An error does not keep it from running: it is for people.
pub(crate) async fn of(object: &Object<Instance>, record: &ImageRecord) -> Result<Option<Sink>, String> {
    let spec = &object.spec.log;
    let tag = || spec.tag(|word| word_of(word, object, record));
    match spec.driver {
        LogDriver::File | LogDriver::None => Ok(None),
        LogDriver::Journald => {
            let socket = spec.options.get("journald-socket").map_or(JOURNAL, String::as_str);
            Ok(Some(Sink::Journal {
                socket: socket.into(),
                fields: fields(object, &tag()?),
            }))
        }
        LogDriver::Syslog => Ok(Some(Sink::Syslog {
            to: address(spec.syslog_address()?).await?,
            facility: spec.syslog_facility()?,
            format: match spec.syslog_format()? {
                "rfc3164" => SyslogFormat::Rfc3164,
                "rfc5424" => SyslogFormat::Rfc5424,
                "rfc5424micro" => SyslogFormat::Rfc5424Micro,
                _ => SyslogFormat::Unix,
            },
            tag: tag()?,
            hostname: host(),
        })),
    }
}

fn host() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

async fn address(to: SyslogAddress) -> Result<SyslogTo, String> {
    Ok(match to {
        SyslogAddress::Local => SyslogTo::Local,
        SyslogAddress::Unix(path) => SyslogTo::Unix(path.into()),
        SyslogAddress::Udp(host) => SyslogTo::Udp(resolve(&host).await?),
        SyslogAddress::Tcp(host) => SyslogTo::Tcp(resolve(&host).await?),
    })
}

/// The shim looks up no names: it holds one address for the length of a run.
async fn resolve(host: &str) -> Result<SocketAddr, String> {
    let mut found = tokio::time::timeout(LOOK_UP, tokio::net::lookup_host(host))
        .await
        .map_err(|_| format!("{host} was not looked up within {} seconds", LOOK_UP.as_secs()))?
        .map_err(|e| format!("{host} cannot be looked up: {e}"))?;
    found.next().ok_or_else(|| format!("{host} has no address"))
}

fn id(object: &Object<Instance>) -> &str {
    object.spec.log.id.as_deref().unwrap_or_else(|| object.uid())
}

fn short(id: &str) -> String {
    let bare = id.strip_prefix("sha256:").unwrap_or(id);
    bare.chars().take(SHORT).collect()
}

fn word_of(word: &str, object: &Object<Instance>, record: &ImageRecord) -> String {
    match word {
        "ID" => short(id(object)),
        "FullID" => id(object).to_string(),
        "Name" => object.name().to_string(),
        "ImageID" => short(&record.image_id.to_string()),
        "ImageFullID" => record.image_id.to_string(),
        "ImageName" => object.spec.main_image().to_string(),
        "DaemonName" => "biga".into(),
        _ => String::new(),
    }
}

/// Fields of each entry of the journal, named as Docker names them.
fn fields(object: &Object<Instance>, tag: &str) -> BTreeMap<String, String> {
    let spec = &object.spec.log;
    let mut all: BTreeMap<String, String> = spec.attributes.iter().map(|(k, v)| (field(k), v.clone())).collect();
    let labels = &object.metadata.labels;
    for name in spec.listed("labels") {
        if let Some(value) = labels.get(name) {
            all.insert(field(name), value.clone());
        }
    }
    let env = object.spec.containers.iter().take(1).flat_map(|c| &c.env);
    for v in env.filter(|v| spec.listed("env").any(|n| n == v.name)) {
        all.insert(field(&v.name), v.value.clone());
    }
    all.remove("");
    for (name, value) in [
        ("CONTAINER_ID", short(id(object))),
        ("CONTAINER_ID_FULL", id(object).to_string()),
        ("CONTAINER_NAME", object.name().to_string()),
        ("CONTAINER_TAG", tag.to_string()),
        ("IMAGE_NAME", object.spec.main_image().to_string()),
        ("SYSLOG_IDENTIFIER", tag.to_string()),
    ] {
        all.insert(name.into(), value);
    }
    all
}

/// A name that the journal takes for a field: letters, digits and underscores, none of these in front, at most 64
/// (systemd.journal-fields(7)). Empty where nothing is left.
fn field(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() {
            c.to_ascii_uppercase()
        } else {
            '_'
        }
    };
    let text: String = name.chars().map(plain).collect();
    let begun = text.trim_start_matches(|c: char| !c.is_ascii_uppercase());
    begun.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use biga_model::{EnvVar, InstanceSpec, LogSpec};

    use super::*;

    #[test]
    fn fields_have_names_that_the_journal_takes() {
        for (name, want) in [
            ("a.b/c-d", "A_B_C_D"),
            ("_x", "X"),
            ("9to5", "TO5"),
            ("__", ""),
            ("É", ""),
        ] {
            assert_eq!(field(name), want, "{name}");
        }
        assert_eq!(field(&"x".repeat(99)).len(), 64);
    }

    #[test]
    fn an_entry_tells_of_the_instance_what_was_asked_for() {
        let options = [("labels", "tier, none"), ("env", "B")];
        let env = |n: &str| EnvVar {
            name: n.into(),
            value: format!("{n}-value"),
        };
        let spec = InstanceSpec {
            image: "busybox".into(),
            log: LogSpec {
                driver: LogDriver::Journald,
                options: options.map(|(k, v)| (k.to_string(), v.to_string())).into(),
                attributes: [("com.x".to_string(), "y".to_string())].into(),
                id: Some("0123456789abcdef".into()),
                ..LogSpec::default()
            },
            containers: vec![biga_model::ContainerSpec {
                env: vec![env("A"), env("B")],
                ..Default::default()
            }],
            ..InstanceSpec::default()
        };
        let mut o = Object::<Instance>::new("web", spec);
        o.metadata.labels = [("tier", "front"), ("other", "x")]
            .map(|(k, v)| (k.into(), v.into()))
            .into();
        let all = fields(&o, "tag");
        let told: Vec<(&str, &str)> = all.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let want = [
            ("B", "B-value"),
            ("COM_X", "y"),
            ("CONTAINER_ID", "0123456789ab"),
            ("CONTAINER_ID_FULL", "0123456789abcdef"),
            ("CONTAINER_NAME", "web"),
            ("CONTAINER_TAG", "tag"),
            ("IMAGE_NAME", "busybox"),
            ("SYSLOG_IDENTIFIER", "tag"),
            ("TIER", "front"),
        ];
        assert_eq!(told, want);
    }
}

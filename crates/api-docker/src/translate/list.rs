//! An instance → a line of `docker ps`.

use biga_model::{Instance, Object, Phase, PortMapping, Timestamp};
use serde_json::{Value, json};

use super::create::sent;
use super::ids::docker_id;
use super::inspect::{Beside, command, mounts, networks, port_summary, status_word};
use super::{familiar, labels};
use crate::types::container::CreateBody;

/// The label by which `docker ps` shows that something is no container.
const ISOLATION: &str = "biga.dev/isolation";

/// One entry of `GET /containers/json`, but for its [`status_text`], which changes with time.
pub fn entry(o: &Object<Instance>, beside: &Beside) -> Value {
    let s = o.status_or_default();
    let sent = sent(&o.metadata);
    let (entrypoint, cmd) = command(&o.spec, beside.image.and_then(|i| i.get("config")));
    let words: Vec<String> = entrypoint.into_iter().chain(cmd).map(quote).collect();
    let ports = match s.phase.is_live() {
        true => ports(&s.ports, &sent, beside),
        false => Vec::new(),
    };
    let mode = super::inspect::host_config(o, &sent)["NetworkMode"].clone();
    let mut labels = labels::read(&o.metadata);
    if o.spec.isolation.is_virtual() {
        // The list has no word of its own for it.
        labels.insert(ISOLATION.into(), o.spec.isolation.as_str().into());
    }
    json!({
        "Id": docker_id(o.uid()),
        "Names": [format!("/{}", o.name())],
        "Image": match sent.image.is_empty() { true => familiar(o.spec.main_image()), false => sent.image.clone() },
        "ImageID": s.image_id,
        "Command": words.join(" "),
        "Created": o.metadata.creation_timestamp.map_or(0, |t| t.as_second()),
        "Ports": ports,
        "Labels": labels,
        "State": status_word(o),
        "HostConfig": {"NetworkMode": mode},
        "NetworkSettings": {"Networks": networks(o, &s, beside)},
        "Mounts": mounts(o, &sent, beside),
    })
}

/// What is published, and what is only exposed.
fn ports(published: &[PortMapping], sent: &CreateBody, beside: &Beside) -> Vec<Value> {
    let mut out: Vec<Value> = published.iter().map(port_summary).collect();
    let config = beside.image.and_then(|i| i.get("config")).unwrap_or(&Value::Null);
    for text in super::hostconfig::exposed(sent, config) {
        let (port, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
        let Ok(port) = port.parse::<u16>() else { continue };
        if !published
            .iter()
            .any(|p| p.port == port && p.protocol.as_str() == protocol)
        {
            out.push(json!({"PrivatePort": port, "Type": protocol}));
        }
    }
    out
}

/// As Docker joins arguments: with quotes where a word has spaces.
fn quote(word: String) -> String {
    if word.contains(' ') { format!("'{word}'") } else { word }
}

/// `Up 5 minutes`, `Exited (0) 2 seconds ago`, `Created`.
pub fn status_text(o: &Object<Instance>, now: Timestamp) -> String {
    let s = o.status_or_default();
    let since =
        |t: Option<Timestamp>| t.map_or_else(|| "Less than a second".into(), |t| ago(now.as_second() - t.as_second()));
    let code = s.exit_code.unwrap_or(0);
    match status_word(o) {
        "running" => format!("Up {}{}", since(s.started_at), super::health::suffix(o)),
        "paused" => format!("Up {} (Paused)", since(s.started_at)),
        "restarting" => format!("Restarting ({code}) {} ago", since(s.finished_at)),
        "removing" => "Removal In Progress".into(),
        "exited" if s.phase != Phase::Running => format!("Exited ({code}) {} ago", since(s.finished_at)),
        _ => "Created".into(),
    }
}

/// A duration as Docker tells it to people.
pub fn ago(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds as f64 / 3600.0).round() as i64;
    match seconds {
        ..1 => "Less than a second".into(),
        1 => "1 second".into(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".into(),
        120..3600 => format!("{minutes} minutes"),
        3600..5400 => "About an hour".into(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_docker_s() {
        for (s, text) in [
            (0, "Less than a second"),
            (-5, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (125, "2 minutes"),
            (3700, "About an hour"),
            (7300, "2 hours"),
            (3 * 86_400, "3 days"),
            (20 * 86_400, "2 weeks"),
            (90 * 86_400, "3 months"),
            (900 * 86_400, "2 years"),
        ] {
            assert_eq!(ago(s), text, "{s}");
        }
    }
}

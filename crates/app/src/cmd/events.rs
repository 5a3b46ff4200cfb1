//! `biga events`.

use biga_client::{ListParams, WatchEvent};
use biga_model::{Event, Object, Timestamp};

use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::{Format, OutputArgs, clean, line};
use crate::parse::time;

/// Arguments of `events`.
#[derive(Debug, clap::Args)]
pub struct EventsArgs {
    /// Events since a time, or not older than a duration, as 10m; only new ones where left out
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Print what there is and end
    #[arg(long)]
    no_stream: bool,
    /// Only those of one object, as instance/web or web
    #[arg(long = "for", value_name = "[KIND/]NAME")]
    object: Option<String>,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// Prints events as they happen.
pub async fn events(cx: &Context, args: EventsArgs) -> anyhow::Result<Code> {
    let since = match &args.since {
        Some(s) => Some(time::since(s, Timestamp::now()).map_err(|e| fail(Code::USAGE, e))?),
        None => None,
    };
    let params = ListParams {
        field_selector: args.object.as_deref().map(selector),
        ..ListParams::default()
    };
    let api = if args.all_namespaces {
        cx.client.api_all::<Event>()
    } else {
        cx.api::<Event>()
    };
    let format = args.output.get();
    let mut watch = api.watch(&params);
    let mut first = true;
    loop {
        match watch.next_event().await? {
            WatchEvent::Listed(mut all) => {
                let wanted = first && (since.is_some() || args.no_stream);
                // After a gap the daemon lists again; what was printed before is not printed twice.
                if wanted {
                    all.sort_by_key(at);
                    for e in all.iter().filter(|e| since.is_none_or(|s| at(e) >= Some(s))) {
                        print(e, format)?;
                    }
                }
                if args.no_stream {
                    return Ok(Code::OK);
                }
                first = false;
            }
            WatchEvent::Applied(e) => print(&e, format)?,
            // Events go by themselves after an hour.
            WatchEvent::Deleted(_) => {}
        }
    }
}

fn selector(object: &str) -> String {
    match object.split_once('/') {
        Some((kind, name)) => {
            let mut letters = kind.chars();
            let first = letters.next().map(|c| c.to_ascii_uppercase());
            let kind: String = first.into_iter().chain(letters).collect();
            format!("spec.regarding.kind={kind},spec.regarding.name={name}")
        }
        None => format!("spec.regarding.name={object}"),
    }
}

fn at(e: &Object<Event>) -> Option<Timestamp> {
    e.spec.time.or(e.metadata.creation_timestamp)
}

fn print(e: &Object<Event>, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json => line(serde_json::to_string(e)?),
        Format::Yaml => crate::output::emit(&format!("---\n{}", crate::output::yaml(e)?)),
        Format::Name => line(format!("event/{}", e.name())),
        Format::Table | Format::Wide => line(text(e)),
    }
}

/// `2026-01-01T00:00:00Z Warning OOMKilled instance/web killed for memory (3 times)`.
fn text(e: &Object<Event>) -> String {
    let s = &e.spec;
    let when = at(e).map(|t| t.to_string()).unwrap_or_default();
    let times = if s.count > 1 {
        format!(" ({} times)", s.count)
    } else {
        String::new()
    };
    let kind = s.regarding.kind.to_lowercase();
    clean(&format!(
        "{when} {:?} {} {kind}/{} {}{times}",
        s.type_, s.reason, s.regarding.name, s.message
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_one_line() {
        let e: Object<Event> = serde_json::from_value(serde_json::json!({
            "apiVersion": "biga.dev/v1", "kind": "Event", "metadata": {"name": "e"},
            "spec": {"type": "Warning", "reason": "OOMKilled", "message": "killed\nfor memory", "count": 3,
                     "regarding": {"kind": "Instance", "name": "web"}, "time": "2026-01-01T00:00:00Z"}
        }))
        .unwrap();
        assert_eq!(
            text(&e),
            "2026-01-01T00:00:00Z Warning OOMKilled instance/web killed\\nfor memory (3 times)"
        );
        assert_eq!(
            selector("instance/web"),
            "spec.regarding.kind=Instance,spec.regarding.name=web"
        );
        assert_eq!(selector("web"), "spec.regarding.name=web");
    }
}

//! `biga ps`.

use biga_client::ListParams;
use biga_model::{Instance, Object, Phase, Timestamp};

use crate::context::{Context, familiar};
use crate::exit::{Code, fail};
use crate::output::{OutputArgs, line, object_table, print_objects, values};

/// Arguments of `ps`.
#[derive(Debug, clap::Args)]
pub struct PsArgs {
    /// Show those that do not run, too
    #[arg(short = 'a', long)]
    all: bool,
    /// Of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// Print names only
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Only some: name=, status=, isolation=, image=, label=KEY[=VALUE], network=
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Lists instances.
pub async fn ps(cx: &Context, args: PsArgs) -> anyhow::Result<Code> {
    let filters = args
        .filter
        .iter()
        .map(|f| Filter::parse(f))
        .collect::<Result<Vec<_>, _>>()?;
    let api = if args.all_namespaces {
        cx.client.api_all::<Instance>()
    } else {
        cx.api::<Instance>()
    };
    let mut items = api.list(&ListParams::default()).await?.items;
    // A filter on the status says itself what is wanted.
    let by_status = filters.iter().any(|f| matches!(f, Filter::Status(_)));
    items.retain(|o| (args.all || by_status || is_current(o)) && Filter::all(&filters, o));
    items.sort_by_key(|o| std::cmp::Reverse(o.metadata.creation_timestamp));
    if args.quiet {
        items.iter().try_for_each(|o| line(o.name()))?;
        return Ok(Code::OK);
    }
    print_objects(&values(&items)?, false, args.output.get(), |wide| {
        object_table(&items, wide, args.all_namespaces, Timestamp::now())
    })?;
    Ok(Code::OK)
}

/// What runs, or is on its way to.
fn is_current(o: &Object<Instance>) -> bool {
    let phase = o.status_or_default().phase;
    phase.is_live() || matches!(phase, Phase::Pending | Phase::Preparing)
}

#[derive(Debug)]
enum Filter {
    Name(String),
    Status(String),
    Isolation(String),
    Image(String),
    Label(String, Option<String>),
    Network(String),
}

impl Filter {
    fn parse(s: &str) -> anyhow::Result<Filter> {
        let (k, v) = s.split_once('=').unwrap_or((s, ""));
        let v = v.to_string();
        Ok(match k {
            "name" => Filter::Name(v),
            "status" => Filter::Status(v.to_lowercase()),
            "isolation" => Filter::Isolation(v),
            "image" | "ancestor" => Filter::Image(familiar(&v)),
            "label" => match v.split_once('=') {
                Some((k, v)) => Filter::Label(k.into(), Some(v.into())),
                None => Filter::Label(v, None),
            },
            "network" => Filter::Network(v),
            _ => {
                return Err(fail(
                    Code::USAGE,
                    format!("{s:?} is no filter: use name=, status=, isolation=, image=, label=, network="),
                ));
            }
        })
    }

    /// As Docker: several filters of one key widen, those of different keys narrow.
    fn all(filters: &[Filter], o: &Object<Instance>) -> bool {
        filters.iter().all(|f| {
            filters
                .iter()
                .filter(|g| std::mem::discriminant(*g) == std::mem::discriminant(f))
                .any(|g| g.matches(o))
        })
    }

    fn matches(&self, o: &Object<Instance>) -> bool {
        let status = o.status_or_default();
        match self {
            Filter::Name(n) => o.name().contains(n.as_str()),
            Filter::Status(s) => status.phase.as_str().to_lowercase() == *s,
            Filter::Isolation(i) => o.spec.isolation.as_str() == i,
            Filter::Image(i) => familiar(o.spec.main_image()) == *i,
            Filter::Label(k, v) => match (o.metadata.labels.get(k), v) {
                (Some(has), Some(want)) => has == want,
                (has, None) => has.is_some(),
                (None, Some(_)) => false,
            },
            Filter::Network(n) => {
                status.networks.iter().any(|e| e.network == *n) || o.spec.networks.iter().any(|a| a.network == *n)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_of_one_key_widen_and_of_different_keys_narrow() {
        let o: Object<Instance> = serde_json::from_value(serde_json::json!({
            "apiVersion": "biga.dev/v1", "kind": "Instance",
            "metadata": {"name": "web-1", "labels": {"tier": "front"}},
            "spec": {"image": "docker.io/library/nginx:1"}, "status": {"phase": "Exited"}
        }))
        .unwrap();
        let matches = |list: &[&str]| {
            let f: Vec<Filter> = list.iter().map(|f| Filter::parse(f).unwrap()).collect();
            Filter::all(&f, &o)
        };
        assert!(matches(&["name=web", "status=exited", "label=tier", "image=nginx:1"]));
        assert!(matches(&["name=db", "name=web"]));
        assert!(!matches(&["name=web", "status=running"]));
        assert!(!matches(&["label=tier=back"]));
        assert!(Filter::parse("colour=red").is_err());
        assert!(!is_current(&o));
    }
}

//! `GET /containers/{id}/top`: the host's `ps`, cut down to the container's processes.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::extract::Query;
use crate::state::DockerApi;
use crate::translate::ids::docker_id;

pub(super) async fn top(State(api): State<DockerApi>, Path(id): Path<String>, q: Query) -> Result<Response> {
    let o = api.container(&id).await?;
    if !o.status_or_default().phase.is_live() {
        return Err(Error::conflict(format!(
            "container {} is not running",
            docker_id(o.uid())
        )));
    }
    let args = q.get("ps_args").unwrap_or("-ef").to_string();
    let pids = api.backend().pids(api.ns(), o.name()).await?;
    let ps = tokio::process::Command::new("ps")
        .args(args.split_whitespace())
        .kill_on_drop(true)
        .output()
        .await;
    let out = ps.map_err(|e| Error::internal(format!("the program ps cannot be run on this host: {e}")))?;
    if !out.status.success() {
        let why = String::from_utf8_lossy(&out.stderr);
        return Err(Error::internal(format!(
            "ps: {}",
            why.lines().next().unwrap_or("it failed")
        )));
    }
    let doc = table(&String::from_utf8_lossy(&out.stdout), &pids)?;
    api.tell(&o, "top", &[]);
    Ok(super::super::ok(&doc))
}

/// The lines whose column `PID` holds one of `pids`. The last column may hold spaces.
fn table(text: &str, pids: &[u32]) -> Result<Value> {
    let mut lines = text.lines();
    let titles: Vec<&str> = lines.next().unwrap_or("").split_whitespace().collect();
    let column = titles.iter().position(|t| *t == "PID");
    let column = column.ok_or_else(|| Error::bad("Couldn't find PID field in ps output"))?;
    let processes: Vec<Vec<String>> = lines
        .map(|line| fields(line, titles.len()))
        .filter(|f| {
            f.get(column)
                .and_then(|p| p.parse().ok())
                .is_some_and(|p: u32| pids.contains(&p))
        })
        .collect();
    Ok(json!({"Titles": titles, "Processes": processes}))
}

fn fields(line: &str, n: usize) -> Vec<String> {
    let mut words = line.split_whitespace();
    let mut out: Vec<String> = words.by_ref().take(n.saturating_sub(1)).map(str::to_string).collect();
    let rest: Vec<&str> = words.collect();
    out.push(rest.join(" "));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_container_s_processes_are_shown() {
        let text = "UID   PID  PPID CMD\nroot    1     0 init splash\nroot   42     1 sleep 100 200\n";
        let doc = table(text, &[42, 43]).unwrap();
        assert_eq!(doc["Processes"], json!([["root", "42", "1", "sleep 100 200"]]));
        assert!(table("USER CMD\n", &[]).is_err());
    }
}

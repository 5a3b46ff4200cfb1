//! Health checks: Docker's documents ↔ the model.

use biga_model::{HealthCheck, Instance, Object};
use serde_json::{Value, json};

use crate::error::Error;
use crate::types::container::{CreateBody, Healthcheck};

/// The label, or annotation of the host config, by which a container is restarted when it becomes unhealthy.
pub const RESTART: &str = "biga.dev/restart-unhealthy";

/// The check of a create body; `None` where it says nothing.
pub fn check(body: &CreateBody) -> Result<Option<HealthCheck>, Error> {
    let asked = [body.labels.get(RESTART), body.host_config.annotations.get(RESTART)];
    let restart = asked
        .iter()
        .flatten()
        .any(|v| matches!(v.as_str(), "true" | "1" | "yes"));
    let check = match &body.healthcheck {
        Some(h) => translate(h)?,
        None => HealthCheck::default(),
    };
    let check = HealthCheck { restart, ..check };
    Ok((check != HealthCheck::default()).then_some(check))
}

fn translate(h: &Healthcheck) -> Result<HealthCheck, Error> {
    if let Some((field, _)) = h.rest.iter().find(|(_, v)| !crate::types::is_zero(v)) {
        return Err(Error::bad(format!("Healthcheck.{field} is not known")));
    }
    match h.test.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["NONE"] | ["CMD", _, ..] | ["CMD-SHELL", _] => {}
        _ => return Err(Error::bad(format!("unknown type of health check: {:?}", h.test))),
    }
    Ok(HealthCheck {
        test: h.test.clone(),
        interval_ms: millis("Interval", h.interval)?,
        timeout_ms: millis("Timeout", h.timeout)?,
        start_period_ms: millis("StartPeriod", h.start_period)?,
        start_interval_ms: millis("StartInterval", h.start_interval)?,
        retries: match u32::try_from(h.retries) {
            Ok(0) => None,
            Ok(n) => Some(n),
            Err(_) => return Err(Error::bad("Retries in Healthcheck cannot be negative")),
        },
        restart: false,
    })
}

fn millis(field: &str, nanos: i64) -> Result<Option<u64>, Error> {
    match u64::try_from(nanos) {
        Ok(0) => Ok(None),
        Ok(n) if n >= 1_000_000 => Ok(Some(n / 1_000_000)),
        _ => Err(Error::bad(format!("{field} in Healthcheck cannot be less than 1ms"))),
    }
}

/// What `Config.Healthcheck` shows: what was sent, on top of the image's.
pub fn config(sent: &CreateBody, image: Value) -> Value {
    let Some(h) = &sent.healthcheck else { return image };
    let mut doc = match image {
        Value::Object(m) => Value::Object(m),
        _ => json!({}),
    };
    if !h.test.is_empty() {
        doc["Test"] = json!(h.test);
    }
    for (field, n) in [
        ("Interval", h.interval),
        ("Timeout", h.timeout),
        ("StartPeriod", h.start_period),
        ("StartInterval", h.start_interval),
        ("Retries", h.retries),
    ] {
        if n != 0 {
            doc[field] = n.into();
        }
    }
    doc
}

/// `State.Health`; null where there is no check.
pub fn state(o: &Object<Instance>) -> Value {
    let Some(h) = o.status_or_default().health else {
        return Value::Null;
    };
    let log: Vec<Value> = h
        .log
        .iter()
        .map(|r| {
            json!({
                "Start": r.start.to_string(),
                "End": r.end.to_string(),
                "ExitCode": r.exit_code,
                "Output": r.output,
            })
        })
        .collect();
    json!({"Status": h.status.as_str(), "FailingStreak": h.failing_streak, "Log": log})
}

/// The word of the filter `health`.
pub fn word(o: &Object<Instance>) -> &'static str {
    o.status_or_default().health.map_or("none", |h| h.status.as_str())
}

/// What `docker ps` shows behind the time: ` (healthy)`, ` (health: starting)`, or nothing.
pub fn suffix(o: &Object<Instance>) -> String {
    match word(o) {
        "none" => String::new(),
        "starting" => " (health: starting)".into(),
        word => format!(" ({word})"),
    }
}

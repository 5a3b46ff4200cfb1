//! `HostConfig.LogConfig`, and back.

use std::collections::BTreeMap;

use biga_model::{LogDriver, LogSpec};

use super::create::{Around, size};
use crate::error::Error;
use crate::types::container::{CreateBody, LogConfig};

/// Where output goes. What goes to the journal or to syslog is kept in files as well, as Docker does, so that it can be read.
pub fn spec(body: &CreateBody, around: &Around, warnings: &mut Vec<String>) -> Result<LogSpec, Error> {
    let sent = &body.host_config.log_config;
    let mut log = LogSpec {
        driver: match sent.driver.as_str() {
            "" | "json-file" | "local" => LogDriver::File,
            "none" => LogDriver::None,
            "journald" => LogDriver::Journald,
            "syslog" => LogDriver::Syslog,
            // Docker's words.
            other => {
                let message = format!(
                    "logger: no log driver named '{other}' is registered: Biga has journald, json-file, local, none and syslog"
                );
                return Err(Error::bad(message));
            }
        },
        ..LogSpec::default()
    };
    let elsewhere = matches!(log.driver, LogDriver::Journald | LogDriver::Syslog);
    for (name, value) in &sent.config {
        option(&mut log, sent, name, value, elsewhere, warnings)?;
    }
    if elsewhere {
        attributes(&mut log, body, around);
    }
    Ok(log)
}

fn option(
    log: &mut LogSpec,
    sent: &LogConfig,
    name: &str,
    value: &str,
    elsewhere: bool,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let invalid = || Error::bad(format!("invalid value for {name}: {value}"));
    match (name, elsewhere) {
        // What is unset is unlimited; saying so is refused by Docker, too, as its container starts.
        ("max-size", false) if value.starts_with('-') => {
            return Err(Error::bad(format!(
                "failed to initialize logging driver: invalid size: '{value}'"
            )));
        }
        ("cache-max-size", true) if value == "-1" => {}
        ("max-size", false) | ("cache-max-size", true) => log.max_size = Some(size(value).ok_or_else(invalid)?),
        ("max-file", false) | ("cache-max-file", true) => log.max_files = Some(value.parse().map_err(|_| invalid())?),
        ("cache-disabled", true) => log.no_files = value.parse().map_err(|_| invalid())?,
        // Here no log ever holds up a container.
        ("mode", _) if value == "non-blocking" => {}
        ("mode", _) if value != "blocking" => {
            return Err(Error::bad(format!("logger: logging mode not supported: {value}")));
        }
        ("mode" | "max-buffer-size" | "compress" | "cache-compress", _) => {
            warnings.push(format!("log option {name} was left out"));
        }
        ("labels-regex" | "env-regex", _) => return Err(Error::missing(format!("the log option {name}"))),
        // These files hold no more than the lines.
        ("tag" | "labels" | "env", false) if log.driver == LogDriver::File => {
            warnings.push(format!("log option {name} was left out: it is for journald and syslog"));
        }
        (_, true) => drop(log.options.insert(name.into(), value.into())),
        _ => {
            let driver = if sent.driver.is_empty() {
                "json-file"
            } else {
                &sent.driver
            };
            return Err(Error::bad(format!("unknown log opt '{name}' for {driver} log driver")));
        }
    }
    Ok(())
}

/// Labels and variables that are told with each line: those of the image, too, which the node does not look at.
fn attributes(log: &mut LogSpec, body: &CreateBody, around: &Around) {
    let mut told = Vec::new();
    let labels = around.image.get("Labels").and_then(serde_json::Value::as_object);
    for name in log.listed("labels") {
        let of_image = || labels.and_then(|l| l.get(name)?.as_str());
        let value = body.labels.get(name).map(String::as_str).or_else(of_image);
        told.extend(value.map(|v| (name.to_string(), v.to_string())));
    }
    let env = around.image.get("Env").and_then(serde_json::Value::as_array);
    let of_image = env.into_iter().flatten().filter_map(serde_json::Value::as_str);
    let all: Vec<&str> = of_image.chain(body.env.iter().map(String::as_str)).collect();
    for name in log.listed("env") {
        let value = all
            .iter()
            .rev()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        told.extend(value.map(|v| (name.to_string(), v.to_string())));
    }
    log.attributes.extend(told);
}

/// The driver's name as Docker shows it; `sent` where that says the same.
pub fn driver<'a>(log: &LogSpec, sent: &'a str) -> &'a str {
    match log.driver {
        LogDriver::File if sent == "local" => sent,
        LogDriver::File => "json-file",
        LogDriver::None => "none",
        LogDriver::Journald => "journald",
        LogDriver::Syslog => "syslog",
    }
}

/// The driver's options as Docker shows them.
pub fn config(log: &LogSpec) -> BTreeMap<String, String> {
    let mut all = log.options.clone();
    let (size, files) = match log.driver {
        LogDriver::Journald | LogDriver::Syslog => ("cache-max-size", "cache-max-file"),
        LogDriver::File | LogDriver::None => ("max-size", "max-file"),
    };
    all.extend(log.max_size.map(|m| (size.to_string(), m.bytes().to_string())));
    all.extend(log.max_files.map(|n| (files.to_string(), n.to_string())));
    all.extend(log.no_files.then(|| ("cache-disabled".to_string(), "true".to_string())));
    all
}

/// Whether it can be read here.
pub fn is_readable(log: &LogSpec) -> bool {
    log.driver != LogDriver::None && !log.no_files
}

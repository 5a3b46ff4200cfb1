//! `--secret` and `--ssh`: what goes along for `RUN --mount`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use biga_wire::build::{MAX_SECRET, Secret};

use crate::exit::{Code, fail};

/// Reads `id=ID[,src=FILE|,env=VARIABLE]`: what the daemon is told, and the bytes that stand before the context.
pub fn secrets(list: &[String]) -> anyhow::Result<(Vec<Secret>, Vec<u8>)> {
    let (mut told, mut bytes) = (Vec::new(), Vec::new());
    for text in list {
        let (id, value) = secret(text).map_err(|why| fail(Code::USAGE, format!("--secret {text}: {why}")))?;
        if value.len() > MAX_SECRET {
            let why = format!("--secret {id}: it is larger than {MAX_SECRET} bytes");
            return Err(fail(Code::USAGE, why));
        }
        told.push(Secret { id, size: value.len() });
        bytes.extend(value);
    }
    Ok((told, bytes))
}

fn secret(text: &str) -> Result<(String, Vec<u8>), String> {
    let (mut id, mut file, mut env, mut kind) = (None, None, None, None);
    for field in text.split(',') {
        let (key, value) = field
            .split_once('=')
            .ok_or("it is id=ID and src=FILE or env=VARIABLE")?;
        match key {
            "id" => id = Some(value),
            "src" | "source" => file = Some(value),
            "env" => env = Some(value),
            "type" if matches!(value, "file" | "env") => kind = Some(value),
            _ => return Err(format!("{field} means nothing here")),
        }
    }
    let id = id.filter(|i| !i.is_empty()).ok_or("it needs an id")?;
    if kind == Some("env") && env.is_none() {
        // Behind this type what is named as a source is a variable.
        env = file.take().or(Some(id));
    }
    let value = match (file, env) {
        (Some(_), Some(_)) => return Err("it comes from a file or from a variable".into()),
        (Some(path), None) => read(path)?,
        (None, Some(name)) => variable(name).ok_or_else(|| format!("there is no variable {name}"))?,
        // As buildx: the variable of this name, or the file.
        (None, None) => match variable(id) {
            Some(value) => value,
            None => read(id)?,
        },
    };
    Ok((id.to_owned(), value))
}

fn read(path: &str) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|e| format!("cannot read {path}: {e}"))
}

fn variable(name: &str) -> Option<Vec<u8>> {
    std::env::var_os(name).map(std::os::unix::ffi::OsStringExt::into_vec)
}

/// Reads `default`, `ID` or `ID=SOCKET`.
pub fn agents(list: &[String]) -> anyhow::Result<BTreeMap<String, String>> {
    let one = |text: &String| {
        let usage = |why: String| fail(Code::USAGE, format!("--ssh {text}: {why}"));
        let (id, path) = match text.split_once('=') {
            Some((id, path)) => (id, PathBuf::from(path)),
            None => {
                let socket = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
                let none =
                    || usage("no agent runs here (SSH_AUTH_SOCK is not set): start one, or name its socket".into());
                (&text[..], socket.ok_or_else(none)?)
            }
        };
        let whole = path
            .canonicalize()
            .map_err(|e| usage(format!("{}: {e}", path.display())))?;
        let is_socket =
            std::fs::metadata(&whole).is_ok_and(|m| std::os::unix::fs::FileTypeExt::is_socket(&m.file_type()));
        if !is_socket {
            return Err(usage(format!(
                "{} is no socket of an agent: give keys to one (ssh-agent, ssh-add) and name that",
                path.display()
            )));
        }
        Ok((id.to_owned(), whole.display().to_string()))
    };
    list.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_read_where_they_are() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s").display().to_string();
        std::fs::write(&path, "hush").unwrap();
        let list = [
            format!("id=a,src={path}"),
            "id=b,env=PATH".into(),
            "type=env,id=PATH".into(),
        ];
        let (told, bytes) = secrets(&list).unwrap();
        let variable = std::env::var("PATH").unwrap();
        let ids: Vec<(&str, usize)> = told.iter().map(|s| (s.id.as_str(), s.size)).collect();
        assert_eq!(ids, [("a", 4), ("b", variable.len()), ("PATH", variable.len())]);
        assert_eq!(bytes, format!("hush{variable}{variable}").into_bytes());
        for bad in [
            "x",
            "src=/x",
            "id=",
            "id=a,src=/none-here",
            "id=a,env=NONE_SUCH_1",
            "id=a,mode=1",
            "id=a,src=x,env=y",
        ] {
            assert!(secrets(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn agents_are_sockets() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent");
        let _listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let found = agents(&[format!("x={}", path.display())]).unwrap();
        assert_eq!(found["x"], path.canonicalize().unwrap().display().to_string());
        std::fs::write(dir.path().join("key"), "").unwrap();
        let e = agents(&[format!("x={}/key", dir.path().display())]).unwrap_err();
        assert!(e.to_string().contains("ssh-add"), "{e}");
    }
}

//! `RUN --mount`: what is seen while a command runs and is no part of the image.

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MountKind {
    /// Files of the context, of a stage or of an image. What is written there is lost.
    Bind,
    /// A directory that later builds find again.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file that only the client has.
    Secret,
    /// A socket of the client's agent of SSH.
    Ssh,
}

/// Who may use a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Everybody.
    Shared,
    /// Nobody: who comes second gets another.
    Private,
    /// Nobody: who comes second waits.
    Locked,
}

/// One `--mount`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub kind: MountKind,
    /// Where; relative to the working directory, empty where there is none.
    pub target: String,
    /// Which part of what it is from.
    pub source: String,
    /// A stage by name or number, or an image; the context where unset.
    pub from: Option<String>,
    /// Whether it cannot be written.
    pub read_only: bool,
    /// Name of the cache, the secret or the agent.
    pub id: String,
    /// Of a cache.
    pub sharing: Sharing,
    /// Permission bits, of what is made.
    pub mode: Option<u32>,
    /// Owner of what is made.
    pub uid: u32,
    /// Group of what is made.
    pub gid: u32,
    /// Whether it is an error that the client has no such secret or agent.
    pub required: bool,
    /// Bytes of a tmpfs.
    pub size: Option<u64>,
    /// The variable that a secret becomes.
    pub env: Option<String>,
}

impl Mount {
    /// Reads what stands behind `--mount=`.
    pub fn parse(text: &str) -> Result<Mount, String> {
        let fields = fields(text)?;
        let kind = match fields.iter().find(|(k, _)| *k == "type").and_then(|(_, v)| *v) {
            None | Some("bind") => MountKind::Bind,
            Some("cache") => MountKind::Cache,
            Some("tmpfs") => MountKind::Tmpfs,
            Some("secret") => MountKind::Secret,
            Some("ssh") => MountKind::Ssh,
            Some(other) => return Err(format!("unsupported mount type {other:?}")),
        };
        let mut m = Mount {
            kind,
            target: String::new(),
            source: String::new(),
            from: None,
            read_only: kind == MountKind::Bind,
            id: String::new(),
            sharing: Sharing::Shared,
            mode: None,
            uid: 0,
            gid: 0,
            required: false,
            size: None,
            env: None,
        };
        for (key, value) in fields {
            m.field(key, value)?;
        }
        m.complete()
    }

    /// The `from=` of a mount that was not expanded yet.
    pub fn from_of(text: &str) -> Option<&str> {
        text.split(',').find_map(|f| f.trim().strip_prefix("from="))
    }

    fn field(&mut self, key: &str, value: Option<&str>) -> Result<(), String> {
        let kind = self.kind;
        let text = || value.ok_or_else(|| format!("invalid field {key:?}: it needs a value"));
        let number = |v: &str| v.parse::<u32>().map_err(|_| format!("invalid value for {key}: {v}"));
        let flag = || match value {
            None | Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(v) => Err(format!("invalid value for {key}: {v}")),
        };
        let fits = match key {
            "type" => return Ok(()),
            "target" | "dst" | "destination" => true,
            "source" | "src" | "from" => matches!(kind, MountKind::Bind | MountKind::Cache),
            "ro" | "readonly" | "rw" | "readwrite" => matches!(kind, MountKind::Bind | MountKind::Cache),
            "id" => matches!(kind, MountKind::Cache | MountKind::Secret | MountKind::Ssh),
            "mode" | "uid" | "gid" => matches!(kind, MountKind::Cache | MountKind::Secret | MountKind::Ssh),
            "sharing" => kind == MountKind::Cache,
            "required" => matches!(kind, MountKind::Secret | MountKind::Ssh),
            "size" => kind == MountKind::Tmpfs,
            "env" => kind == MountKind::Secret,
            _ => return Err(format!("unexpected key {key:?} in a mount")),
        };
        if !fits {
            return Err(format!("unexpected key {key:?} for mount type {:?}", kind.name()));
        }
        match key {
            "target" | "dst" | "destination" => self.target = text()?.into(),
            "source" | "src" => self.source = text()?.into(),
            "from" => self.from = Some(text()?.into()),
            "ro" | "readonly" => self.read_only = flag()?,
            "rw" | "readwrite" => self.read_only = !flag()?,
            "id" => self.id = text()?.into(),
            "mode" => {
                let v = text()?;
                let mode = u32::from_str_radix(v, 8).ok().filter(|m| *m <= 0o7777);
                self.mode = Some(mode.ok_or_else(|| format!("invalid value for mode: {v}"))?);
            }
            "uid" => self.uid = number(text()?)?,
            "gid" => self.gid = number(text()?)?,
            "required" => self.required = flag()?,
            "size" => self.size = Some(size(text()?)?),
            "env" => self.env = Some(text()?.into()),
            _ => {
                self.sharing = match text()? {
                    "shared" => Sharing::Shared,
                    "private" => Sharing::Private,
                    "locked" => Sharing::Locked,
                    other => return Err(format!("unsupported sharing value {other:?}")),
                };
            }
        }
        Ok(())
    }

    /// What is not said follows from the rest.
    fn complete(mut self) -> Result<Mount, String> {
        match self.kind {
            MountKind::Bind | MountKind::Cache | MountKind::Tmpfs => {
                if self.target.is_empty() {
                    return Err(format!("a mount of type {} needs a target", self.kind.name()));
                }
                if self.id.is_empty() {
                    self.id.clone_from(&self.target);
                }
            }
            MountKind::Secret => {
                if self.id.is_empty() {
                    let name = self.target.rsplit('/').next().unwrap_or_default();
                    self.id = self
                        .env
                        .clone()
                        .filter(|_| name.is_empty())
                        .unwrap_or_else(|| name.into());
                }
                if self.id.is_empty() {
                    return Err("a secret needs an id or a target".into());
                }
                if self.target.is_empty() && self.env.is_none() {
                    let name = self.id.rsplit('/').next().unwrap_or_default();
                    self.target = format!("/run/secrets/{name}");
                }
            }
            MountKind::Ssh => {
                if self.id.is_empty() {
                    self.id = "default".into();
                }
            }
        }
        Ok(self)
    }
}

impl MountKind {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            MountKind::Bind => "bind",
            MountKind::Cache => "cache",
            MountKind::Tmpfs => "tmpfs",
            MountKind::Secret => "secret",
            MountKind::Ssh => "ssh",
        }
    }
}

/// `a=b,c`, each once.
fn fields(text: &str) -> Result<Vec<(&str, Option<&str>)>, String> {
    let mut all = Vec::new();
    for field in text.split(',') {
        let (key, value) = match field.split_once('=') {
            Some((k, v)) => (k.trim(), Some(v.trim())),
            None => (field.trim(), None),
        };
        if key.is_empty() {
            return Err(format!("empty field in the mount {text:?}"));
        }
        all.push((key, value));
    }
    Ok(all)
}

/// `64m`
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match text[digits.len()..].to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return Err(format!("invalid value for size: {text}")),
    };
    let n: Option<u64> = digits.parse().ok();
    n.and_then(|n| n.checked_mul(1 << shift))
        .ok_or_else(|| format!("invalid value for size: {text}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_said_and_what_follows() {
        let m = Mount::parse("type=cache,target=/root/.cache,sharing=locked,mode=0700,uid=1,gid=2").unwrap();
        assert_eq!(
            (m.kind, m.sharing, m.id.as_str()),
            (MountKind::Cache, Sharing::Locked, "/root/.cache")
        );
        assert!(m.mode == Some(0o700) && (m.uid, m.gid) == (1, 2) && !m.read_only);
        let m = Mount::parse("target=/src,from=build,source=/out,rw").unwrap();
        assert!(m.kind == MountKind::Bind && m.from.as_deref() == Some("build") && !m.read_only && m.source == "/out");
        assert!(Mount::parse("target=/src").unwrap().read_only);
        let m = Mount::parse("type=secret,id=a/token").unwrap();
        assert!(m.target == "/run/secrets/token" && m.id == "a/token" && !m.required);
        let m = Mount::parse("type=secret,target=/root/.netrc,required").unwrap();
        assert!(m.id == ".netrc" && m.required);
        let m = Mount::parse("type=secret,id=t,env=TOKEN").unwrap();
        assert!(m.target.is_empty() && m.env.as_deref() == Some("TOKEN"));
        assert_eq!(Mount::parse("type=ssh").unwrap().id, "default");
        assert_eq!(
            Mount::parse("type=tmpfs,target=/t,size=64m").unwrap().size,
            Some(64 << 20)
        );
        assert_eq!(Mount::from_of("type=bind,from=x,target=/y"), Some("x"));
    }

    #[test]
    fn what_makes_no_sense() {
        for (text, said) in [
            ("type=other,target=/x", "unsupported mount type"),
            ("type=cache", "needs a target"),
            ("type=bind", "needs a target"),
            ("type=secret", "needs an id or a target"),
            (
                "type=tmpfs,target=/x,from=y",
                "unexpected key \"from\" for mount type \"tmpfs\"",
            ),
            ("type=cache,target=/x,what=1", "unexpected key \"what\""),
            ("type=cache,target=/x,sharing=all", "sharing"),
            ("type=cache,target=/x,mode=999", "mode"),
            ("type=cache,target=/x,uid=-1", "uid"),
            ("target=/x,ro=maybe", "ro"),
            ("target=/x,,", "empty field"),
            ("type=tmpfs,target=/x,size=99999999999g", "size"),
        ] {
            let e = Mount::parse(text).unwrap_err();
            assert!(e.contains(said), "{text}: {e}");
        }
    }

    proptest! {
        #[test]
        fn any_text(text in "(type=(cache|secret|ssh|bind|tmpfs)|[a-z]{1,6}|=|,|/|[0-9é\"]){0,12}") {
            let _ = Mount::parse(&text);
        }
    }
}

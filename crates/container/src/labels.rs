//! AppArmor profiles and SELinux labels, where the host has them.

use std::fs;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::Error;
use crate::error::Context;

/// What a program runs under.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub selinux: Option<String>,
}

/// Whether the host enforces AppArmor profiles.
pub fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|t| t.starts_with('Y'))
}

/// Whether the host has SELinux.
pub fn has_selinux() -> bool {
    const SELINUX_MAGIC: i64 = 0xf97c_ff8c;
    rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|s| s.f_type == SELINUX_MAGIC)
}

impl Labels {
    /// What of the wishes this host can do; the rest is left out, as by Docker. Asked while the host's files can be seen.
    pub fn on_this_host(apparmor: Option<&str>, selinux: Option<&str>) -> Labels {
        let wish = |w: Option<&str>| w.filter(|w| !w.is_empty() && *w != "unconfined").map(str::to_owned);
        Labels {
            apparmor: wish(apparmor).filter(|_| has_apparmor()),
            selinux: wish(selinux).filter(|_| has_selinux()),
        }
    }

    /// Lets the program that this process executes next run under them. The last thing before that: the kernel wants the
    /// file to be opened by who writes it.
    pub fn apply(&self) -> Result<(), Error> {
        if let Some(profile) = &self.apparmor {
            let own = Path::new("/proc/thread-self/attr/apparmor/exec");
            let path = if own.exists() {
                own
            } else {
                Path::new("/proc/thread-self/attr/exec")
            };
            write(path, &format!("exec {profile}"))
                .step(|| format!("run under AppArmor profile {profile:?} (is it loaded?)"))?;
        }
        if let Some(label) = &self.selinux {
            write(Path::new("/proc/thread-self/attr/exec"), label)
                .step(|| format!("run under SELinux label {label:?}"))?;
        }
        Ok(())
    }
}

/// Writes into procfs, and nothing that was put in its place.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    const PROC_MAGIC: i64 = 0x9fa0;
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty())?;
    if rustix::fs::fstatfs(&file)?.f_type != PROC_MAGIC {
        return Err(std::io::Error::other(format!("{} is not of procfs", path.display())));
    }
    rustix::io::write(file, text.as_bytes())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_the_host_cannot_do_are_left_out() {
        let l = Labels::on_this_host(Some("unconfined"), None);
        assert_eq!(l, Labels::default());
        let l = Labels::on_this_host(Some("some-profile"), Some("system_u:system_r:container_t:s0"));
        assert_eq!(l.apparmor.is_some(), has_apparmor());
        assert_eq!(l.selinux.is_some(), has_selinux());
    }

    #[test]
    fn only_procfs_is_written() {
        let file = tempfile_path();
        fs::write(&file, "").unwrap();
        assert!(write(&file, "x").unwrap_err().to_string().contains("procfs"));
        fs::remove_file(&file).unwrap();
    }

    fn tempfile_path() -> std::path::PathBuf {
        std::env::temp_dir().join(format!("biga-labels-{}", std::process::id()))
    }
}

//! Volumes that are a mount of their own: a file system, an export of another host, a directory of this one.
//!
//! They are mounted when an instance first needs them and stay until they are removed: nothing of them may be deleted
//! while something is mounted there, for it would be deleted on the other side.

use std::path::{Path, PathBuf};

use biga_model::LocalMount;
use tokio::process::Command;
use tokio::sync::Mutex;

use crate::instance::Failure;

/// Two instances that start at once must not mount twice.
static MOUNTING: Mutex<()> = Mutex::const_new(());

/// Mounts what `m` says at `dir`, where that is not mounted yet.
pub async fn mount(m: &LocalMount, dir: &Path) -> Result<(), Failure> {
    let _one = MOUNTING.lock().await;
    let failed = |why: String| {
        let what = if m.device.is_empty() { &m.fs_type } else { &m.device };
        Failure::new(
            "VolumeFailed",
            format!("cannot mount {what} at {}: {why}", dir.display()),
        )
    };
    if is_mounted(dir).map_err(|e| failed(e.to_string()))? {
        return Ok(());
    }
    let out = Command::new("mount")
        .args(arguments(m))
        .arg(dir)
        .env("LC_ALL", "C")
        .output()
        .await
        .map_err(|e| failed(format!("mount(8) cannot be run: {e}")))?;
    match out.status.success() {
        true => Ok(()),
        false => Err(failed(String::from_utf8_lossy(&out.stderr).trim().to_string())),
    }
}

/// Options and device for mount(8).
fn arguments(m: &LocalMount) -> Vec<String> {
    let mut args = Vec::new();
    if !matches!(m.fs_type.as_str(), "" | "none") {
        args.extend(["-t".to_string(), m.fs_type.clone()]);
    }
    if !m.options.is_empty() {
        args.extend(["-o".to_string(), m.options.clone()]);
    }
    args.push("--".into());
    // mount(8) wants a word for it where the file system has no device.
    args.push(if m.device.is_empty() {
        "none".into()
    } else {
        m.device.clone()
    });
    args
}

/// Takes away what is mounted at `dir`; an error where something stays.
pub fn unmount(dir: &Path) -> std::io::Result<()> {
    while is_mounted(dir)? {
        rustix::mount::unmount(dir, rustix::mount::UnmountFlags::empty())?;
    }
    Ok(())
}

fn is_mounted(dir: &Path) -> std::io::Result<bool> {
    // What is not there has nothing mounted on it.
    let dir: PathBuf = match dir.canonicalize() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().any(|l| {
        l.split(' ')
            .nth(4)
            .is_some_and(|p| unescaped(p) == dir.as_os_str().as_encoded_bytes())
    }))
}

/// The kernel writes spaces and the like as `\040`.
fn unescaped(text: &str) -> Vec<u8> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut i = 0;
    while i < bytes.len() {
        let digits = bytes.get(i + 1..i + 4).and_then(|d| std::str::from_utf8(d).ok());
        match digits.and_then(|d| u8::from_str_radix(d, 8).ok()) {
            Some(b) if bytes[i] == b'\\' => {
                out.push(b);
                i += 4;
            }
            _ => {
                out.push(bytes[i]);
                i += 1;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(fs_type: &str, device: &str, options: &str) -> LocalMount {
        LocalMount {
            fs_type: fs_type.into(),
            device: device.into(),
            options: options.into(),
        }
    }

    #[test]
    fn mount_is_told_what_docker_users_write() {
        let words = |m| arguments(&m).join(" ");
        assert_eq!(words(local("none", "/srv/data", "bind")), "-o bind -- /srv/data");
        assert_eq!(
            words(local("tmpfs", "tmpfs", "size=1m")),
            "-t tmpfs -o size=1m -- tmpfs"
        );
        assert_eq!(words(local("tmpfs", "", "")), "-t tmpfs -- none");
        assert_eq!(unescaped("/a\\040b\\\\"), b"/a b\\\\");
    }

    #[tokio::test]
    async fn mounted_once_and_taken_away_whole() {
        let dir = tempfile::tempdir().unwrap();
        let (from, at) = (dir.path().join("from there"), dir.path().join("at here"));
        std::fs::create_dir_all(&from).unwrap();
        std::fs::create_dir_all(&at).unwrap();
        std::fs::write(from.join("file"), "kept").unwrap();
        let m = local("none", from.to_str().unwrap(), "bind");
        mount(&m, &at).await.unwrap();
        mount(&m, &at).await.unwrap();
        assert!(at.join("file").exists() && is_mounted(&at).unwrap());
        unmount(&at).unwrap();
        assert!(!at.join("file").exists() && !is_mounted(&at).unwrap());
        assert_eq!(std::fs::read_to_string(from.join("file")).unwrap(), "kept");
        let f = mount(&local("none", "/nonexistent/dir", "bind"), &at)
            .await
            .unwrap_err();
        assert!(f.message.contains("/nonexistent/dir"), "{f}");
    }
}

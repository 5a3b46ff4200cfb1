//! A machine's cloud-init seed: a small FAT disk labelled `cidata`, which cloud-init finds by that label ("NoCloud").

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use biga_wire::config::Nic;
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};
use serde_json::{Map, Value, json};

/// Smallest image, bytes: the FAT of a floppy disk.
const MIN_SIZE: u64 = 1440 << 10;

/// What a machine is told at its first boot.
#[derive(Debug, Clone, Default)]
pub struct Seed {
    /// A new id makes cloud-init do first-boot work again.
    pub instance_id: String,
    /// Host name.
    pub hostname: String,
    /// The user's own configuration, as it is (`#cloud-config …` or a script); empty for none.
    pub user_data: String,
    /// Public keys for the image's default user.
    pub ssh_keys: Vec<String>,
    /// Cards, found by their hardware address.
    pub nics: Vec<Nic>,
}

/// Why there is no seed.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the cloud-init seed {path}")]
pub struct Error {
    /// Which.
    pub path: PathBuf,
    /// The cause.
    #[source]
    pub source: io::Error,
}

/// Writes the image, in place of an older one.
pub fn write(path: &Path, seed: &Seed) -> Result<(), Error> {
    let temp = path.with_extension("new");
    let result = image(&temp, seed).and_then(|()| fs::rename(&temp, path));
    result.map_err(|source| Error {
        path: path.to_owned(),
        source,
    })
}

fn image(path: &Path, seed: &Seed) -> io::Result<()> {
    let files = [
        ("meta-data", meta_data(seed)),
        ("user-data", user_data(seed)),
        ("network-config", network_config(seed)),
    ];
    let content: u64 = files.iter().map(|(_, text)| text.len() as u64).sum();
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    // Twice the content leaves room for the tables.
    file.set_len(MIN_SIZE.max(2 * content).next_multiple_of(4096))?;
    fatfs::format_volume(&mut file, FormatVolumeOptions::new().volume_label(*b"cidata     "))?;
    {
        let volume = FileSystem::new(&mut file, FsOptions::new())?;
        for (name, text) in files {
            volume.root_dir().create_file(name)?.write_all(text.as_bytes())?;
        }
        volume.unmount()?;
    }
    file.sync_all()
}

// JSON is YAML too, and nothing a user writes can break out of it.

fn meta_data(seed: &Seed) -> String {
    let mut meta = json!({ "instance-id": seed.instance_id, "local-hostname": seed.hostname });
    if !seed.ssh_keys.is_empty() {
        meta["public-keys"] = json!(seed.ssh_keys);
    }
    meta.to_string()
}

fn user_data(seed: &Seed) -> String {
    match seed.user_data.as_str() {
        "" => "#cloud-config\n{}\n".to_owned(),
        text => text.to_owned(),
    }
}

fn network_config(seed: &Seed) -> String {
    let mut ethernets = Map::new();
    for (i, nic) in seed.nics.iter().enumerate() {
        let mut card = json!({ "match": { "macaddress": nic.mac.to_ascii_lowercase() } });
        match nic.address.is_empty() {
            true => card["dhcp4"] = json!(true),
            false => card["addresses"] = json!([nic.address]),
        }
        if !nic.gateway.is_empty() {
            card["routes"] = json!([{ "to": "0.0.0.0/0", "via": nic.gateway }]);
        }
        if nic.mtu > 0 {
            card["mtu"] = json!(nic.mtu);
        }
        if !nic.dns.is_empty() {
            card["nameservers"] = json!({ "addresses": nic.dns });
        }
        ethernets.insert(format!("nic{i}"), card);
    }
    json!({ "version": 2, "ethernets": Value::Object(ethernets) }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn seed() -> Seed {
        Seed {
            instance_id: "i-1".into(),
            hostname: "web\": {evil".into(),
            user_data: String::new(),
            ssh_keys: vec!["ssh-ed25519 AAAA me".into()],
            nics: vec![Nic {
                mac: "52:54:00:AA:BB:CC".into(),
                address: "10.88.0.5/24".into(),
                gateway: "10.88.0.1".into(),
                dns: vec!["10.88.0.1".into()],
                mtu: 1450,
                ..Nic::default()
            }],
        }
    }

    /// Reads a file by mtools, which knows nothing of our writer.
    fn read(image: &Path, name: &str) -> String {
        let out = Command::new("mtype")
            .arg("-i")
            .arg(image)
            .arg(format!("::{name}"))
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn others_can_read_the_image() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.img");
        write(&path, &seed()).unwrap();
        write(&path, &seed()).unwrap();
        let label = Command::new("blkid")
            .args(["-p", "-s", "LABEL", "-o", "value"])
            .arg(&path)
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&label.stdout).trim(), "cidata");
        let meta: Value = serde_json::from_str(&read(&path, "meta-data")).unwrap();
        assert_eq!(meta["local-hostname"], "web\": {evil");
        assert_eq!(meta["public-keys"][0], "ssh-ed25519 AAAA me");
        assert!(read(&path, "user-data").starts_with("#cloud-config\n"));
        let network: Value = serde_json::from_str(&read(&path, "network-config")).unwrap();
        let card = &network["ethernets"]["nic0"];
        assert_eq!(card["match"]["macaddress"], "52:54:00:aa:bb:cc");
        assert_eq!(
            (&card["addresses"][0], &card["mtu"]),
            (&json!("10.88.0.5/24"), &json!(1450))
        );
        let check = Command::new("fsck.fat").arg("-n").arg(&path).output().unwrap();
        assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stdout));
    }

    #[test]
    fn large_user_data_fits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("seed.img");
        let text = format!("#cloud-config\n# {}\n", "x".repeat(3 << 20));
        let large = Seed {
            user_data: text.clone(),
            ..seed()
        };
        write(&path, &large).unwrap();
        assert!(read(&path, "user-data") == text);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_named() {
        let error = write(Path::new("/proc/none/seed.img"), &seed()).unwrap_err();
        assert!(error.to_string().contains("/proc/none/seed.img"));
    }
}

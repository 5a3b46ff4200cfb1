//! What is mounted into a container, and where.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use biga_wire::config::{Mount, MountHow, MountSource};
use biga_wire::shim::Reply;

use crate::support::Rig;

fn bind(path: impl AsRef<Path>, target: &str) -> Mount {
    Mount {
        source: MountSource::Bind {
            path: path.as_ref().to_owned(),
            sub_path: None,
        },
        target: target.into(),
        read_only: false,
        copy_up: false,
        how: MountHow::default(),
    }
}

#[test]
fn own_files_and_a_writable_layer() {
    let rig =
        Rig::sh("cat /etc/hosts /etc/hostname /etc/resolv.conf; echo x > /tmp/new; echo y >> /etc/hosts; stat -c %a /")
            .up();
    assert_eq!(rig.wait().code, 0);
    assert_eq!(rig.log(), "127.0.0.1 localhost\nbox\nnameserver 192.0.2.1\n755\n");
    assert_eq!(
        std::fs::read_to_string(rig.dir.join("state/upper/tmp/new")).unwrap(),
        "x\n"
    );
    assert!(!rig.layer().join("tmp/new").exists());
}

#[test]
fn a_read_only_root() {
    let rig = Rig::sh("touch /tmp/x 2>&1; touch /vol/y && echo volume; touch /dev/shm/z && echo shm")
        .with(|c| c.read_only_root = true);
    let vol = rig.dir.join("vol");
    std::fs::create_dir(&vol).unwrap();
    let (_, log) = rig.with(|c| c.mounts.push(bind(&vol, "/vol"))).run();
    assert!(log.contains("Read-only") && log.contains("volume\nshm\n"), "{log}");
}

#[test]
fn directories_files_and_read_only_binds() {
    let rig = Rig::sh("cat /data/in /single; echo out > /data/out; touch /ro/x 2>&1; echo more > /single");
    let data = rig.dir.join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("in"), "in\n").unwrap();
    std::fs::write(rig.dir.join("single"), "single\n").unwrap();
    let (dir, single) = (data.clone(), rig.dir.join("single"));
    let rig = rig
        .with(|c| {
            c.mounts = vec![
                bind(&dir, "/data"),
                bind(&single, "/single"),
                Mount {
                    read_only: true,
                    ..bind(&dir, "/ro")
                },
            ];
        })
        .up();
    assert_eq!(rig.wait().code, 0);
    assert!(
        rig.log().starts_with("in\nsingle\n") && rig.log().contains("Read-only"),
        "{}",
        rig.log()
    );
    assert_eq!(std::fs::read_to_string(data.join("out")).unwrap(), "out\n");
    assert_eq!(std::fs::read_to_string(rig.dir.join("single")).unwrap(), "more\n");
}

#[test]
fn links_in_the_image_never_lead_out() {
    let rig = Rig::sh("ls -d /escape /deep/er; cat /escape/mark");
    let outside = rig.dir.join("outside");
    std::fs::create_dir(&outside).unwrap();
    // An absolute link to a directory of the host, and one that climbs.
    symlink(&outside, rig.layer().join("escape")).unwrap();
    symlink("../../../../../../../..", rig.layer().join("deep")).unwrap();
    let vol = rig.dir.join("vol");
    std::fs::create_dir(&vol).unwrap();
    std::fs::write(vol.join("mark"), "mark\n").unwrap();
    std::fs::create_dir_all(rig.layer().join(outside.strip_prefix("/").unwrap())).unwrap();
    let rig = rig
        .with(|c| c.mounts = vec![bind(&vol, "/escape"), bind(&vol, "/deep/er")])
        .up();
    assert_eq!(rig.wait().code, 0, "{}", rig.log());
    assert!(rig.log().contains("mark\n"));
    assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    assert!(!Path::new("/er").exists());
}

#[test]
fn a_link_of_a_volume_does_not_lead_out_of_it() {
    let rig = Rig::new(&["ls", "/in"]);
    let vol = rig.dir.join("vol");
    std::fs::create_dir(&vol).unwrap();
    symlink("/etc", vol.join("sub")).unwrap();
    let mount = Mount {
        source: MountSource::Bind {
            path: vol.clone(),
            sub_path: Some("sub".into()),
        },
        ..bind(&vol, "/in")
    };
    let mut rig = rig.with(|c| c.mounts.push(mount));
    match rig.launch() {
        // The link leads to a directory of this name inside the volume, which is made, or is refused; never to the host's.
        Reply::Status { .. } => {
            rig.wait();
            assert_eq!(rig.log(), "");
        }
        Reply::Error { message, .. } => assert!(message.contains("sub"), "{message}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_new_volume_gets_the_images_content() {
    let rig =
        Rig::sh("cat /data/file; stat -c '%a %u' /data /data/file; readlink /data/link; echo changed > /data/file");
    let image = rig.layer().join("data");
    std::fs::create_dir(&image).unwrap();
    std::fs::write(image.join("file"), "of the image\n").unwrap();
    symlink("/etc/shadow", image.join("link")).unwrap();
    std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o750)).unwrap();
    std::os::unix::fs::chown(&image, Some(33), Some(34)).unwrap();
    let vol = rig.dir.join("vol");
    std::fs::create_dir(&vol).unwrap();
    let mount = Mount {
        copy_up: true,
        ..bind(&vol, "/data")
    };
    let rig = rig.with(|c| c.mounts.push(mount.clone())).up();
    assert_eq!(rig.wait().code, 0);
    assert_eq!(rig.log(), "of the image\n750 33\n644 0\n/etc/shadow\n");
    assert_eq!(std::fs::metadata(&vol).unwrap().uid(), 33);
    assert_eq!(std::fs::read_to_string(vol.join("file")).unwrap(), "changed\n");
    // A volume that has something keeps it.
    let again = Rig::new(&["cat", "/data/file"]);
    std::fs::create_dir(again.layer().join("data")).unwrap();
    std::fs::write(again.layer().join("data/file"), "of the image\n").unwrap();
    let (_, log) = again.with(|c| c.mounts.push(mount)).run();
    assert_eq!(log, "changed\n");
}

#[test]
fn memory_and_block_volumes() {
    let rig = Rig::sh("grep ' /mem ' /proc/mounts; stat -c %a /mem; touch /blk/kept; grep ' /blk ' /proc/mounts");
    let file = rig.dir.join("disk");
    std::fs::File::create(&file).unwrap().set_len(8 << 20).unwrap();
    assert!(
        Command::new("mkfs.ext4")
            .arg("-q")
            .arg(&file)
            .status()
            .unwrap()
            .success()
    );
    let rig = rig
        .with(|c| {
            c.mounts = vec![
                Mount {
                    source: MountSource::Tmpfs {
                        size: Some(1 << 20),
                        mode: 0o1777,
                        options: Vec::new(),
                    },
                    ..bind("/", "/mem")
                },
                Mount {
                    source: MountSource::Block { path: file.clone() },
                    ..bind("/", "/blk")
                },
            ];
        })
        .up();
    assert_eq!(rig.wait().code, 0, "{}", rig.log());
    assert!(
        rig.log().contains("size=1024k") && rig.log().contains("1777") && rig.log().contains("ext4"),
        "{}",
        rig.log()
    );
}

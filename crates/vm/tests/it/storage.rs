//! Layers, volumes and shared directories of microvms.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use biga_wire::config::{Mount, MountHow, MountSource};
use biga_wire::shim::ErrorCode;
use biga_wire::workload::MAIN;

use crate::support::{Shim, microvm};

fn bind(path: &Path, target: &str, read_only: bool) -> Mount {
    Mount {
        source: MountSource::Bind {
            path: path.to_owned(),
            sub_path: None,
        },
        target: target.into(),
        read_only,
        copy_up: false,
        how: MountHow::default(),
    }
}

#[test]
fn what_was_written_is_there_after_a_restart() {
    let mut image = microvm("test -f /kept && { cat /kept; exit 5; }; echo first > /kept; rm /data/seed; kill -9 $$");
    let mut shim = Shim::boot(image.workload());
    let exit = shim.wait_exit(MAIN);
    assert_eq!((exit.code, exit.signal), (137, Some(9)));
    shim.delete();
    // A sparse file that holds only what was written.
    let rw = fs::metadata(image.dir.path().join("state/rw.img")).unwrap();
    assert_eq!(rw.len(), 256 << 20);
    assert!(rw.blocks() * 512 < 32 << 20, "{} bytes", rw.blocks() * 512);
    // The same shim starts it again, as a restart policy does.
    image.config.process.args[2] += "; exit 1";
    let mut shim = Shim::boot(image.workload());
    assert_eq!(shim.wait_exit(MAIN).code, 5);
    assert_eq!(shim.main().out(), "first\n");
}

#[test]
fn a_read_only_root_with_volumes() {
    let mut image = microvm("sleep 1000");
    let block = image.dir.path().join("volume.raw");
    biga_vm::disk::ext4(&block, 64 << 20).unwrap();
    image.config.read_only_root = true;
    image.config.mounts = vec![
        Mount {
            source: MountSource::Block { path: block.clone() },
            target: "/data".into(),
            read_only: false,
            copy_up: true,
            how: MountHow::default(),
        },
        Mount {
            source: MountSource::Tmpfs {
                size: Some(1 << 20),
                mode: 0o1777,
                options: Vec::new(),
            },
            target: "/scratch/deep".into(),
            read_only: false,
            copy_up: false,
            how: MountHow::default(),
        },
    ];
    let mut shim = Shim::boot(image.workload());
    assert_ne!(shim.sh("echo x > /file").0, 0);
    assert_ne!(shim.sh("echo x > /bin/file").0, 0);
    // The volume was filled from the image, once.
    assert_eq!(
        shim.sh("cat /data/seed && echo changed > /data/seed && echo mine > /data/new")
            .1,
        "from the image\n"
    );
    assert_eq!(
        shim.sh(
            "stat -c %a /scratch/deep; echo x > /scratch/deep/f && df -k /scratch/deep | tail -1 | awk '{print $2}'"
        )
        .1,
        "1777\n1024\n"
    );
    shim.signal(MAIN, 9);
    assert_eq!(shim.wait_exit(MAIN).code, 137);
    shim.delete();
    // On disk it is whole: another microvm sees it.
    image.config.mounts.truncate(1);
    image.config.mounts[0].read_only = true;
    image.config.process.args[2] = "cat /data/seed /data/new; echo x > /data/new || exit 8".into();
    let mut shim = Shim::boot(image.workload());
    assert_eq!(shim.wait_exit(MAIN).code, 8);
    assert_eq!(shim.main().out(), "changed\nmine\n");
}

#[test]
fn directories_are_shared_in_both_directions() {
    let mut image = microvm("sleep 1000");
    let (rw, ro) = (image.dir.path().join("rw"), image.dir.path().join("ro"));
    for dir in [&rw, &ro] {
        fs::create_dir(dir).unwrap();
        fs::write(dir.join("hello"), "from the host\n").unwrap();
    }
    fs::write(image.dir.path().join("secret"), "not shared").unwrap();
    let sub = Mount {
        source: MountSource::Bind {
            path: rw.clone(),
            sub_path: Some("made/here".into()),
        },
        ..bind(&rw, "/sub", false)
    };
    let file = ro.join("hello");
    image.config.mounts = vec![
        bind(&rw, "/rw", false),
        bind(&ro, "/ro", true),
        sub,
        bind(&file, "/etc/one-file", true),
    ];
    let mut shim = Shim::boot(image.workload());
    assert_eq!(
        shim.sh("cat /rw/hello /ro/hello /etc/one-file").1,
        "from the host\n".repeat(3)
    );
    assert_eq!(
        shim.sh("echo inside > /rw/back; mkdir /rw/dir; echo deep > /sub/file")
            .0,
        0
    );
    assert_eq!(fs::read_to_string(rw.join("back")).unwrap(), "inside\n");
    assert_eq!(fs::read_to_string(rw.join("made/here/file")).unwrap(), "deep\n");
    assert_ne!(shim.sh("echo x > /ro/hello").0, 0);
    assert_ne!(shim.sh("echo x > /etc/one-file").0, 0);
    fs::write(rw.join("later"), "news").unwrap();
    assert_eq!(shim.sh("cat /rw/later").1, "news");
    assert_eq!(shim.sh("ls /rw/.. | grep -c secret").1, "0\n");
    let daemons = shim.workload.pids(&mut shim.host).unwrap();
    assert_eq!(daemons.len(), 5, "QEMU and one for each share");
    shim.delete();
    for pid in daemons {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is left");
    }
    let left: Vec<_> = fs::read_dir(image.dir.path().join("run"))
        .unwrap()
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert!(left.iter().all(|n| n.to_string_lossy().ends_with(".log")), "{left:?}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "from the host\n");
}

#[test]
fn what_cannot_be_done_is_said_before_anything_starts() {
    let mut image = microvm("true");
    image.config.mounts = vec![bind(Path::new("/etc"), "/x", true)];
    image.config.hypervisor.virtiofsd = None;
    let mut shim = Shim::new(image.workload());
    shim.workload.create(&mut shim.host).unwrap();
    let fault = shim.workload.start(&mut shim.host).unwrap_err();
    assert_eq!(fault.code, ErrorCode::Unsupported);
    assert!(fault.message.contains("install"), "{fault}");

    image.config.mounts = (0..21)
        .map(|n| bind(Path::new("/etc"), &format!("/{n}"), true))
        .collect();
    let mut shim = Shim::new(image.workload());
    assert_eq!(
        shim.workload.create(&mut shim.host).unwrap_err().code,
        ErrorCode::Unsupported
    );

    image.config.mounts.clear();
    image.config.layers[0].file = image.dir.path().join("gone");
    let mut shim = Shim::new(image.workload());
    assert!(
        shim.workload
            .create(&mut shim.host)
            .unwrap_err()
            .message
            .contains("gone")
    );

    // A kernel that is none: QEMU's words are in the message.
    let mut image = microvm("true");
    image.config.kernel = "/etc/passwd".into();
    let mut shim = Shim::new(image.workload());
    shim.workload.create(&mut shim.host).unwrap();
    shim.workload.start(&mut shim.host).unwrap();
    let fault = shim
        .until("the failure", |host| host.streams.get(&MAIN)?.started.clone())
        .unwrap_err();
    assert!(fault.message.contains("QEMU said"), "{fault}");
}

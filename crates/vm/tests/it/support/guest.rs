//! Guest program, kernel and image layers: made once, kept beside the build, guarded by a lock.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use biga_vm::setup::{self, Kernel, Source};
use biga_wire::config::{Hypervisor, Layer, Log, Microvm, Process, ShimConfig, Workload};
use tempfile::TempDir;

pub const QEMU: &str = "/usr/bin/qemu-system-x86_64";

/// Kept between runs.
fn cache() -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("microvm");
    fs::create_dir_all(&dir).unwrap();
    dir
}

/// Runs `make` while no other test does.
fn locked<T>(name: &str, make: impl FnOnce(&Path) -> T) -> T {
    let dir = cache();
    let lock = File::create(dir.join(format!("{name}.lock"))).unwrap();
    lock.lock().unwrap();
    make(&dir)
}

/// The kernel with the guest program.
pub fn kernel() -> Kernel {
    setup::prepare_kernel(&cache().join("kernel"), &Source::Download, biga_payload::GUEST).unwrap()
}

/// A layer of these files; links to busybox are made for each name in `applets`.
pub fn layer(file: &Path, files: &[(&str, &str)], busybox: bool) {
    let root = tempfile::tempdir().unwrap();
    for dir in ["bin", "etc", "proc", "sys", "dev", "tmp", "data"] {
        if busybox {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
    }
    if busybox {
        fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
        let list = Command::new("/bin/busybox").arg("--list").output().unwrap();
        for name in String::from_utf8(list.stdout).unwrap().lines() {
            let _ = std::os::unix::fs::symlink("busybox", root.path().join("bin").join(name));
        }
    }
    for (path, content) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    let out = Command::new("mkfs.erofs")
        .arg("--all-root")
        .arg(file)
        .arg(root.path())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Busybox and the files of a small system.
pub fn base_layer() -> PathBuf {
    locked("base", |dir| {
        let file = dir.join("base-1.erofs");
        if !file.exists() {
            let new = dir.join("base.new");
            layer(
                &new,
                &[
                    (
                        "etc/passwd",
                        "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33::/var/www:/bin/sh\n",
                    ),
                    ("etc/group", "root:x:0:\nweb:x:33:\nlogs:x:44:web\n"),
                    ("data/seed", "from the image\n"),
                ],
                true,
            );
            fs::rename(&new, &file).unwrap();
        }
        file
    })
}

/// Directories of one instance and its configuration.
pub struct Image {
    pub dir: TempDir,
    pub config: Microvm,
}

/// A microvm that runs this shell line.
pub fn microvm(line: &str) -> Image {
    let kernel = kernel();
    let dir = tempfile::Builder::new().prefix("biga-vm").tempdir().unwrap();
    for name in ["run", "state"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    let config = Microvm {
        hypervisor: hypervisor(128),
        kernel: kernel.vmlinux,
        initrd: kernel.initrd,
        process: Process {
            args: ["/bin/sh", "-c", line].map(str::to_owned).to_vec(),
            env: vec!["PATH=/bin".into()],
            cwd: "/".into(),
            ..Process::default()
        },
        layers: vec![Layer {
            file: base_layer(),
            mount: None,
        }],
        rw_size: 256 << 20,
        hostname: "box".into(),
        hosts: "127.0.0.1 localhost\n".into(),
        resolv_conf: "nameserver 10.9.8.7\n".into(),
        shm_size: 1 << 20,
        capabilities: ["CHOWN", "SETUID", "SETGID", "KILL", "NET_RAW", "DAC_OVERRIDE", "FOWNER"]
            .map(str::to_owned)
            .to_vec(),
        ..Microvm::default()
    };
    Image { dir, config }
}

pub fn hypervisor(mib: u64) -> Hypervisor {
    Hypervisor {
        qemu: QEMU.into(),
        version: biga_vm::qemu::version(Path::new(QEMU)).unwrap(),
        kvm: false,
        virtiofsd: Some("/usr/lib/qemu/virtiofsd".into()).filter(|p: &PathBuf| p.exists()),
        cpus: 1,
        memory: mib << 20,
    }
}

impl Image {
    pub fn shim_config(&self, workload: Workload) -> ShimConfig {
        ShimConfig {
            uid: "11111111-2222-3333-4444-555555555555".into(),
            name: "test".into(),
            run_dir: self.dir.path().join("run"),
            state_dir: self.dir.path().join("state"),
            log: Log::default(),
            start: true,
            wait_attach_ms: 0,
            cgroup: "biga-test".into(),
            limits: Default::default(),
            workload,
        }
    }

    pub fn workload(&self) -> biga_vm::microvm::MicrovmWorkload {
        let shim = self.shim_config(Workload::Microvm(Box::new(self.config.clone())));
        biga_vm::microvm::MicrovmWorkload::new(&shim, &self.config)
    }
}

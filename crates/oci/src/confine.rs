//! Who a process is and what it may do: read from the configuration before it is made, applied as its last step.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use biga_container::caps::{self, Caps};
use biga_container::{confine, labels};
use biga_sys::task::{self, Scheduling};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, CpuSet, Gid, Uid};

use crate::control::{self, Message};
use crate::error::{Error, Step};
use crate::namespaces::Kind;
use crate::seccomp::Filter;
use crate::spec::{self, Process};

/// The five sets.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sets {
    bounding: Caps,
    effective: Caps,
    inheritable: Caps,
    permitted: Caps,
    ambient: Caps,
}

/// How a process is confined.
#[derive(Debug)]
pub struct Confinement {
    user: spec::User,
    sets: Sets,
    rlimits: Vec<(Resource, u64, u64)>,
    no_new_privileges: bool,
    oom_score_adj: Option<i32>,
    scheduling: Option<Scheduling>,
    io_priority: Option<(u32, u32)>,
    processors: Option<CpuSet>,
    personality: Option<u64>,
    cwd: String,
    /// System call filter.
    pub filter: Option<Filter>,
    label: Option<Label>,
    new_keyring: Option<CString>,
}

/// A label for the program that is executed next, and the file to write it to, opened while `/proc` was the host's.
#[derive(Debug)]
struct Label {
    file: Option<OwnedFd>,
    kind: LabelKind,
    /// Label or profile.
    name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LabelKind {
    AppArmor,
    SeLinux,
}

/// Reads a process of the configuration. What had to be left out is put into `warnings`.
pub fn read(
    process: &Process,
    personality: Option<u64>,
    filter: Option<Filter>,
    warnings: &mut Vec<String>,
) -> Result<Confinement, Error> {
    let limits = process.rlimits.iter().enumerate().map(|(i, l)| {
        if process.rlimits[..i].iter().any(|o| o.kind == l.kind) {
            return Err(Error::invalid("process.rlimits", format!("{} is there twice", l.kind)));
        }
        if !l.kind.starts_with("RLIMIT_") {
            return Err(Error::invalid("process.rlimits", format!("there is no {:?}", l.kind)));
        }
        Ok((confine::resource(&l.kind)?, l.soft, l.hard))
    });
    Ok(Confinement {
        user: process.user.clone(),
        sets: sets(process, warnings)?,
        rlimits: limits.collect::<Result<_, Error>>()?,
        no_new_privileges: process.no_new_privileges,
        oom_score_adj: process.oom_score_adj,
        scheduling: process.scheduler.as_ref().map(scheduling).transpose()?,
        io_priority: process.io_priority.as_ref().map(io_priority).transpose()?,
        processors: process
            .exec_cpu_affinity
            .as_ref()
            .map(processors)
            .transpose()?
            .flatten(),
        personality,
        cwd: process.cwd.clone(),
        filter,
        label: label(process)?,
        new_keyring: None,
    })
}

fn sets(process: &Process, warnings: &mut Vec<String>) -> Result<Sets, Error> {
    let Some(wanted) = &process.capabilities else {
        return Ok(Sets::default());
    };
    let host = caps::available()?;
    let mut missing: Vec<String> = Vec::new();
    let mut read = |names: &[String]| {
        let mut set = Caps::default();
        for name in names {
            // The specification: what cannot be given is said and left out, and is no failure.
            match Caps::parse([name.as_str()]) {
                Ok(c) if name.starts_with("CAP_") && c.bits() & !host.bits() == 0 => set = set.or(c),
                _ => missing.push(name.clone()),
            }
        }
        set
    };
    let bounding = read(&wanted.bounding);
    let effective = read(&wanted.effective);
    let inheritable = read(&wanted.inheritable);
    let permitted = read(&wanted.permitted);
    // The kernel lets nothing be ambient that is not both.
    let ambient = read(&wanted.ambient).and(permitted).and(inheritable);
    missing.sort();
    missing.dedup();
    if !missing.is_empty() {
        warnings.push(format!("this host cannot give capabilities {}", missing.join(", ")));
    }
    if effective.bits() & !permitted.bits() != 0 {
        return Err(Error::invalid(
            "process.capabilities",
            "what is effective must be permitted",
        ));
    }
    Ok(Sets {
        bounding,
        effective,
        inheritable,
        permitted,
        ambient,
    })
}

fn scheduling(s: &spec::Scheduler) -> Result<Scheduling, Error> {
    const POLICIES: [(&str, u32); 6] = [
        ("SCHED_OTHER", 0),
        ("SCHED_FIFO", 1),
        ("SCHED_RR", 2),
        ("SCHED_BATCH", 3),
        ("SCHED_IDLE", 5),
        ("SCHED_DEADLINE", 6),
    ];
    const FLAGS: [(&str, u64); 7] = [
        ("SCHED_FLAG_RESET_ON_FORK", 1),
        ("SCHED_FLAG_RECLAIM", 2),
        ("SCHED_FLAG_DL_OVERRUN", 4),
        ("SCHED_FLAG_KEEP_POLICY", 8),
        ("SCHED_FLAG_KEEP_PARAMS", 16),
        ("SCHED_FLAG_UTIL_CLAMP_MIN", 32),
        ("SCHED_FLAG_UTIL_CLAMP_MAX", 64),
    ];
    let unknown = |name: &str| Error::invalid("process.scheduler", format!("there is no {name:?}"));
    let policy = POLICIES.iter().find(|(n, _)| *n == s.policy);
    let mut flags = 0;
    for name in &s.flags {
        flags |= FLAGS.iter().find(|(n, _)| n == name).ok_or_else(|| unknown(name))?.1;
    }
    Ok(Scheduling {
        policy: policy.ok_or_else(|| unknown(&s.policy))?.1,
        flags,
        nice: s.nice,
        priority: s.priority,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
    })
}

fn io_priority(p: &spec::IoPriority) -> Result<(u32, u32), Error> {
    let class = match p.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(Error::invalid("process.ioPriority", format!("there is no {other:?}"))),
    };
    if p.priority > 7 {
        return Err(Error::invalid("process.ioPriority", "the level goes from 0 to 7"));
    }
    Ok((class, p.priority))
}

/// The processors a program begins with. Where it is while it enters the container makes no difference that can be seen.
fn processors(a: &spec::CpuAffinity) -> Result<Option<CpuSet>, Error> {
    let list = if a.last.is_empty() { &a.initial } else { &a.last };
    let bad = || Error::invalid("process.execCPUAffinity", format!("{list:?} is no list of processors"));
    if list.is_empty() {
        return Ok(None);
    }
    let mut set = CpuSet::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let number = |n: &str| n.trim().parse::<usize>().map_err(|_| bad());
        for n in number(first)?..=number(last)? {
            if n >= CpuSet::MAX_CPU {
                return Err(bad());
            }
            set.set(n);
        }
    }
    Ok(Some(set))
}

fn label(process: &Process) -> Result<Option<Label>, Error> {
    let of = |kind, name: &str| {
        Ok(Some(Label {
            file: None,
            kind,
            name: name.to_owned(),
        }))
    };
    let missing = |field, system| {
        Err(Error::unsupported(
            field,
            format!("this host has no {system}: leave it out"),
        ))
    };
    if !process.selinux_label.is_empty() {
        return match labels::has_selinux() {
            true => of(LabelKind::SeLinux, &process.selinux_label),
            false => missing("process.selinuxLabel", "SELinux"),
        };
    }
    match (process.apparmor_profile.as_str(), labels::has_apparmor()) {
        ("", _) | ("unconfined", false) => Ok(None),
        (profile, true) => of(LabelKind::AppArmor, profile),
        (_, false) => missing("process.apparmorProfile", "AppArmor"),
    }
}

impl Confinement {
    /// Gives the process a session keyring of its own, with this name.
    pub fn own_keyring(&mut self, id: &str) {
        self.new_keyring = CString::new(format!("_ses.{id}")).ok();
    }

    /// Lets go of the open file of the label, to be put elsewhere.
    pub fn take_label_file(&mut self) -> Option<OwnedFd> {
        self.label.as_mut().and_then(|l| l.file.take())
    }

    /// Takes it back.
    pub fn set_label_file(&mut self, file: OwnedFd) {
        if let Some(label) = &mut self.label {
            label.file = Some(file);
        }
    }

    /// What must be done while the host's files are seen and the process still has the host's rights.
    pub fn early(&mut self) -> Result<(), Error> {
        if let Some(name) = &self.new_keyring {
            task::new_session_keyring(name).step(|| "make a session keyring".into())?;
        }
        if let Some(score) = self.oom_score_adj {
            let file = host_proc("oom_score_adj")?;
            rustix::io::write(file, score.to_string().as_bytes()).step(|| {
                format!("set the out-of-memory score to {score} (less than the runtime's own takes CAP_SYS_RESOURCE)")
            })?;
        }
        if let Some(label) = &mut self.label {
            label.file = Some(label.open()?);
        }
        if let Some(s) = &self.scheduling {
            task::set_scheduling(s).step(|| "set the scheduling policy".into())?;
        }
        if let Some((class, level)) = self.io_priority {
            task::set_io_priority(class, level).step(|| "set the priority of disk access".into())?;
        }
        if let Some(set) = &self.processors {
            rustix::thread::sched_setaffinity(None, set).step(|| "choose processors".into())?;
        }
        if let Some(domain) = self.personality {
            task::set_personality(domain).step(|| "set the execution domain".into())?;
        }
        Ok(())
    }

    /// Becomes who it is to be, in the working directory. The filter is the one thing left, with `no_new_privileges` and unless it
    /// has a listener, of which the runtime is told over the socket.
    pub fn apply(&self, socket: &OwnedFd) -> Result<(), Error> {
        // Not earlier: making a container may take more than its program may have.
        for (what, soft, hard) in &self.rlimits {
            let limit = |n: u64| (n != u64::MAX).then_some(n);
            let wanted = Rlimit {
                current: limit(*soft),
                maximum: limit(*hard),
            };
            rustix::process::setrlimit(*what, wanted).step(|| {
                format!(
                    "set resource limit {what:?} to {soft}:{hard} (this host's is {})",
                    host_limit(*what)
                )
            })?;
        }
        caps::bound(self.sets.bounding)?;
        rustix::thread::set_keep_capabilities(true).step(|| "keep capabilities".into())?;
        let groups: Vec<Gid> = self.user.additional_gids.iter().map(|g| Gid::from_raw(*g)).collect();
        let (uid, gid) = (Uid::from_raw(self.user.uid), Gid::from_raw(self.user.gid));
        match rustix::thread::set_thread_groups(&groups) {
            // A user namespace may have no say in groups; none are wanted then.
            Err(rustix::io::Errno::PERM) if groups.is_empty() => {}
            other => other.step(|| "set supplementary groups".into())?,
        }
        rustix::thread::set_thread_res_gid(gid, gid, gid).step(|| format!("become group {}", self.user.gid))?;
        // The directory may be one that only root, or only the user, can enter.
        let entered = change_directory(&self.cwd);
        if self.filter.is_some() && !self.no_new_privileges {
            self.install(socket)?;
        }
        rustix::thread::set_thread_res_uid(uid, uid, uid).step(|| format!("become user {}", self.user.uid))?;
        if let Err(e) = entered {
            change_directory(&self.cwd).map_err(|_| e)?;
        }
        if let Some(mask) = self.user.umask {
            rustix::process::umask(Mode::from_raw_mode(mask & 0o777));
        } else {
            rustix::process::umask(Mode::from_raw_mode(0o022));
        }
        self.apply_sets()?;
        if self.no_new_privileges {
            rustix::thread::set_no_new_privs(true).step(|| "forbid new privileges".into())?;
            if self.listens() {
                // Later on nobody is there who could hand the listener over.
                self.install(socket)?;
            }
        }
        Ok(())
    }

    /// Whether another program answers system calls.
    fn listens(&self) -> bool {
        self.filter.as_ref().is_some_and(|f| f.listener.is_some())
    }

    fn apply_sets(&self) -> Result<(), Error> {
        let bits = |c: Caps| CapabilitySet::from_bits_retain(c.bits());
        let sets = CapabilitySets {
            effective: bits(self.sets.effective),
            permitted: bits(self.sets.permitted),
            inheritable: bits(self.sets.inheritable),
        };
        rustix::thread::set_keep_capabilities(false).step(|| "let go of capabilities".into())?;
        rustix::thread::set_capabilities(None, sets).step(|| "set capabilities".into())?;
        // None is where capabilities are not known to be ambient at all.
        let _ = rustix::thread::clear_ambient_capability_set();
        for bit in (0..64).filter(|b| self.sets.ambient.bits() >> b & 1 == 1) {
            let one = CapabilitySet::from_bits_retain(1 << bit);
            rustix::thread::configure_capability_in_ambient_set(one, true)
                .step(|| "make capabilities ambient".into())?;
        }
        Ok(())
    }

    /// Lets what this process, or a child of it, executes next run under the label. The kernel takes it only from who opened the
    /// file.
    pub fn set_label(&mut self) -> Result<(), Error> {
        self.label.take().as_ref().map_or(Ok(()), Label::write)
    }

    /// The last thing before the program: the label, and the filter where it was not installed before.
    pub fn last(&self) -> Result<(), Error> {
        self.label.as_ref().map_or(Ok(()), Label::write)?;
        match &self.filter {
            Some(filter) if self.no_new_privileges && !self.listens() => {
                biga_sys::seccomp::install(&filter.code, filter.flags).step(|| "install the system call filter".into())
            }
            _ => Ok(()),
        }
    }

    fn install(&self, socket: &OwnedFd) -> Result<(), Error> {
        let what = || "install the system call filter".into();
        let Some(filter) = &self.filter else { return Ok(()) };
        if !self.listens() {
            return biga_sys::seccomp::install(&filter.code, filter.flags).step(what);
        }
        let listener = biga_sys::seccomp::install_listening(&filter.code, filter.flags).step(what)?;
        // Any call from here on may wait for an answer, and nobody listens before this one was heard.
        let what = || "speak to the runtime".into();
        control::send(socket, &Message::Listener(listener.as_raw_fd()), None).step(what)?;
        match control::receive(socket).step(what)? {
            Some(Message::Listener(_)) => Ok(()),
            _ => Err(Error::Child("the runtime went away".into())),
        }
    }
}

impl Label {
    /// Where several systems are active, the file without a name of its own is that of one of them.
    fn open(&self) -> Result<OwnedFd, Error> {
        let own = "attr/apparmor/exec";
        match self.kind {
            LabelKind::AppArmor if Path::new("/proc/self").join(own).exists() => host_proc(own),
            _ => host_proc("attr/exec"),
        }
    }

    fn write(&self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        let name = &self.name;
        match self.kind {
            LabelKind::AppArmor => rustix::io::write(file, format!("exec {name}").as_bytes())
                .step(|| format!("run under AppArmor profile {name:?} (is it loaded?)"))?,
            LabelKind::SeLinux => {
                rustix::io::write(file, name.as_bytes()).step(|| format!("run under SELinux label {name:?}"))?
            }
        };
        Ok(())
    }
}

/// A file of this process, surely of `/proc`: something else in its place would be written to with the host's rights.
fn host_proc(name: &str) -> Result<OwnedFd, Error> {
    const PROC_MAGIC: i64 = 0x9fa0;
    let path = format!("/proc/self/{name}");
    let what = || format!("open {path}");
    let file = rustix::fs::open(&path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).step(what)?;
    if rustix::fs::fstatfs(&file).step(what)?.f_type != PROC_MAGIC {
        return Err(io::Error::other("it is not a file of the kernel")).step(what);
    }
    Ok(file)
}

fn host_limit(what: Resource) -> String {
    match rustix::process::getrlimit(what).maximum {
        Some(n) => n.to_string(),
        None => "unlimited".into(),
    }
}

/// Enters the working directory, which must be inside.
fn change_directory(path: &str) -> Result<(), Error> {
    let what = || format!("enter working directory {path}");
    rustix::process::chdir(path).step(what)?;
    // A path through somebody's open directory may lie outside the root: the kernel then gives no absolute path.
    let real = rustix::process::getcwd(Vec::new()).step(what)?;
    if real.to_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Error::State(format!(
            "working directory {path} is outside the container"
        )))
    }
}

/// Whether a kernel parameter belongs to a namespace that the container has of its own.
pub fn own_sysctl(name: &str, has: impl Fn(Kind) -> bool) -> bool {
    const IPC: [&str; 8] = [
        "kernel.msgmax",
        "kernel.msgmnb",
        "kernel.msgmni",
        "kernel.sem",
        "kernel.shmall",
        "kernel.shmmax",
        "kernel.shmmni",
        "kernel.shm_rmid_forced",
    ];
    let name = name.replace('/', ".");
    if name.split('.').any(str::is_empty) {
        return false;
    }
    match name.as_str() {
        "kernel.domainname" | "kernel.hostname" => has(Kind::Uts),
        n if IPC.contains(&n) || n.starts_with("fs.mqueue.") => has(Kind::Ipc),
        n if n.starts_with("net.") => has(Kind::Network),
        n if n.starts_with("user.") => has(Kind::User),
        _ => false,
    }
}

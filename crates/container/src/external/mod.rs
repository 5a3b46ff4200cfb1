//! A container that another OCI runtime makes (`runc`, `crun`, …), as its shim holds it.
//!
//! ```text
//!   shim: a mount namespace of its own ─ root, volumes ─ config.json
//!     │ runtime create ──► its process, which becomes the shim's child when the runtime has ended
//!     │ runtime start, exec, kill, pause, update, delete
//!     └ pipes, terminal, exit status, memory notices: as of our own
//! ```
//!
//! The network namespace, layers and everything else that outlives a run is made by the agent, for both. What a runtime cannot be
//! asked for is refused before anything is made.
//!
//! - [`place`]: what is mounted
//! - [`bundle`], [`limits`]: the document
//! - [`program`], [`console`]: calling the runtime

mod bundle;
mod console;
mod limits;
mod place;
mod program;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use biga_sys::process::Child;
use biga_sys::signal;
use biga_wire::config::{Container, Limits, OciRuntime, ShimConfig};
use biga_wire::shim::{ErrorCode, ExecSpec, Exit, Stats};
use biga_wire::workload::{Fault, Host, Interest, MAIN, StreamId, Workload};

use crate::caps::{self, Caps};
use crate::cgroup::{self, Group, Version};
use crate::error::{Context, Error};
use crate::oci_spec::{Process, bare};
use crate::oom::{Notice, OOM};
use crate::stream::{self, Ends, Stream};
use crate::workload::{end_of, set_nonblocking, streams, traffic};
use crate::{devices, mounts, setup};

use bundle::{Bundle, Wish};
use console::Console;
use place::{NoMask, Place};
use program::{Call, LONG, Program};

/// Token of the news that children ended; no stream has it.
const CHILDREN: u32 = u32::MAX - 1;
const SIGKILL: i32 = 9;
const SIGCHLD: i32 = 17;
/// The directory of the bundle and of what belongs to it, below the instance's run directory.
const DIR: &str = "oci";
/// The init, in there.
const INIT_FILE: &str = "init";

/// A container of another runtime.
#[derive(Debug)]
pub struct ExternalWorkload {
    config: ShimConfig,
    container: Container,
    caps: Caps,
    host_caps: Caps,
    program: Program,
    place: Option<Place>,
    /// The runtime was told to make it, and not yet to remove it.
    told: bool,
    /// Made, and waiting for start.
    created: Option<(Child, Ends)>,
    group: Option<Group>,
    streams: BTreeMap<StreamId, Stream>,
    oom: Notice,
    /// Tells that a child ended: also those come that somebody inside the host's process ids left.
    ends: Option<OwnedFd>,
}

impl ExternalWorkload {
    /// Checks what can be checked without doing anything. `container` is what `config.workload` holds, and names a runtime.
    pub fn new(config: ShimConfig, container: Container) -> Result<ExternalWorkload, Error> {
        let runtime = container.runtime.clone();
        let runtime = runtime.ok_or_else(|| Error::Field("the runtime", "none is named".into()))?;
        refuse(&config, &container, &runtime)?;
        let host_caps = caps::available()?;
        let caps = if container.privileged {
            host_caps
        } else {
            Caps::parse(container.capabilities.iter().map(String::as_str))?.and(host_caps)
        };
        for name in container.sysctls.keys() {
            if !setup::own_sysctl(name, &container) {
                return Err(Error::Sysctl(name.clone()));
            }
        }
        let program = Program::new(runtime, &config.uid, &config.run_dir.join(DIR));
        Ok(ExternalWorkload {
            config,
            container,
            caps,
            host_caps,
            program,
            place: None,
            told: false,
            created: None,
            group: None,
            streams: BTreeMap::new(),
            oom: Notice::default(),
            ends: None,
        })
    }

    fn make(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        self.hold_children(host)?;
        let mask = NoMask::new();
        self.make_directories()?;
        let rules = devices::rules(&self.container)?;
        mounts::write_own_files(&self.container, &self.config.run_dir)?;
        self.place = Some(Place::make(
            &self.config,
            &self.container,
            &self.program.file("mounts"),
        )?);
        let p = &self.container.process;
        let mut args = p.args.clone();
        if p.init {
            place_init(&self.program.file(INIT_FILE))?;
            args.splice(0..0, [bundle::INIT.to_owned(), crate::init::INIT.to_owned()]);
        }
        let wish = Wish {
            args: &args,
            env: &p.env,
            cwd: &p.cwd,
            user: &p.user,
            tty: p.tty,
            window: None,
            privileged: false,
        };
        let bundle = self.bundle()?;
        let process = bundle.process(&wish)?;
        bundle.place.make_directory(&self.container, &process.cwd)?;
        let (spec, joined) = bundle.spec(process, rules.as_deref())?;
        write(&self.program.file("config.json"), &spec)?;
        drop(mask);
        let created = self.create();
        drop(joined);
        created
    }

    /// Children of the runtime become this process's when their parents end.
    fn hold_children(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        let what = || "hold the runtime's processes".into();
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).step(what)?;
        let ends = signal::descriptor(&[SIGCHLD]).step(what)?;
        host.watch(ends.as_fd(), CHILDREN, Interest::READ).step(what)?;
        self.ends = Some(ends);
        Ok(())
    }

    /// The bundle's directory, without what a shim left there that was killed.
    fn make_directories(&self) -> Result<(), Error> {
        remove_state(&self.program.state())?;
        for dir in [self.program.state(), self.program.file("mounts")] {
            let what = || format!("make directory {}", dir.display());
            fs::create_dir_all(&dir).step(what)?;
        }
        Ok(())
    }

    fn bundle(&self) -> Result<Bundle<'_>, Error> {
        let place = self.place.as_ref();
        Ok(Bundle {
            config: &self.config,
            container: &self.container,
            place: place.ok_or_else(|| Error::Field("the state", "the container was deleted".into()))?,
            caps: self.caps,
            host_caps: self.host_caps,
        })
    }

    fn create(&mut self) -> Result<(), Error> {
        let dir = self.program.file("");
        let dir = dir.to_string_lossy();
        let process = &self.container.process;
        let args = ["create", "--bundle", dir.as_ref()];
        self.told = true;
        let begun = self.begin("create the container", &args, process.tty, process.stdin, &process.args)?;
        let (child, ends) = begun;
        let mut group = Group::open(&self.config.cgroup);
        if group.exists() {
            // Older runtimes pass over what they do not know, and a limit must not go unnoticed.
            group.update(&self.config.limits)?;
        }
        self.group = Some(group);
        self.created = Some((child, ends));
        self.let_go_of_others();
        Ok(())
    }

    /// Other instances' mounts lie beside the directories of this one, where the daemon put all of them.
    fn let_go_of_others(&self) {
        let (run, state) = (&self.config.run_dir, &self.config.state_dir);
        if let Some(instances) = run.parent().filter(|p| p.ends_with("instances"))
            && let Some(root) = instances.parent()
        {
            place::let_go_of_others(root, &[run, state]);
        }
    }

    /// Has the runtime make a process, and takes it over.
    fn begin(
        &self,
        what: &'static str,
        args: &[&str],
        tty: bool,
        stdin: bool,
        command: &[String],
    ) -> Result<(Child, Ends), Error> {
        let (theirs, pipes) = streams(tty, stdin)?;
        let console = match tty {
            true => Some(Console::listen(&self.program.file("tty"))?),
            false => None,
        };
        let pid_file = self.program.file("pid");
        // Of the process before.
        let _ = fs::remove_file(&pid_file);
        let pid_path = pid_file.to_string_lossy();
        let mut args = args.to_vec();
        args.extend(["--pid-file", pid_path.as_ref()]);
        if let Some(console) = &console {
            args.extend(["--console-socket", console.path()]);
        }
        let errors = match &pipes {
            Some(Ends::Pipes { stderr, .. }) => Some(stderr),
            _ => None,
        };
        let before = program::children();
        self.program.call(&Call {
            patience: LONG,
            streams: theirs.as_ref(),
            errors,
            program: command.first().map(String::as_str),
            ..Call::plain(what, &args)
        })?;
        drop(theirs);
        let taken = take_over(&pid_file, self.program.name(), what).and_then(|child| {
            let ends = match (console, pipes) {
                (Some(console), _) => Ends::Terminal(console.terminal()?),
                (None, Some(pipes)) => pipes,
                (None, None) => return Err(Error::Field("the standard streams", "there are none".into())),
            };
            set_nonblocking(&ends).step(|| "watch the process's streams".into())?;
            Ok((child, ends))
        });
        if taken.is_err() {
            program::end_others(&before);
        }
        taken
    }

    fn launch(&mut self, host: &mut dyn Host) -> Result<u32, Error> {
        let created = self.created.take();
        let (child, ends) =
            created.ok_or_else(|| Error::Field("the state", "the container was started before".into()))?;
        let command = self.container.process.args.first().map(String::as_str);
        let started = self.program.call(&Call {
            patience: LONG,
            program: command,
            ..Call::plain("start the container", &["start"])
        });
        if let Err(e) = started {
            // For whoever deletes it.
            self.created = Some((child, ends));
            return Err(e);
        }
        let stream = Stream::new(MAIN, child, ends, host).step(|| "watch the process's streams".into())?;
        let pid = stream.child.pid;
        self.streams.insert(MAIN, stream);
        if let Some(group) = &self.group {
            self.oom.begin(group, host)?;
        }
        Ok(pid)
    }

    fn spawn(&mut self, id: StreamId, spec: &ExecSpec, host: &mut dyn Host) -> Result<u32, Error> {
        if !self.streams.contains_key(&MAIN) {
            return Err(Error::Field("the state", "the container does not run".into()));
        }
        let file = self.program.file("exec.json");
        write(&file, &self.exec_process(spec)?)?;
        let path = file.to_string_lossy();
        let args = ["exec", "--detach", "--process", path.as_ref()];
        let (child, ends) = self.begin(
            "run a program in the container",
            &args,
            spec.tty,
            spec.stdin,
            &spec.args,
        )?;
        if let (Ends::Terminal(master), Some((rows, columns))) = (&ends, spec.window) {
            setup::resize(master, rows, columns).step(|| "set the terminal's size".into())?;
        }
        let stream = Stream::new(id, child, ends, host).step(|| "watch the process's streams".into())?;
        let pid = stream.child.pid;
        self.streams.insert(id, stream);
        Ok(pid)
    }

    fn exec_process(&self, spec: &ExecSpec) -> Result<Process, Error> {
        let main = &self.container.process;
        let mut env = main.env.clone();
        for variable in &spec.env {
            let name = variable.split('=').next().unwrap_or_default();
            env.retain(|v| v.split('=').next() != Some(name));
            env.push(variable.clone());
        }
        self.bundle()?.process(&Wish {
            args: &spec.args,
            env: &env,
            cwd: spec.cwd.as_deref().unwrap_or(&main.cwd),
            user: spec.user.as_deref().unwrap_or(&main.user),
            tty: spec.tty,
            window: spec.window,
            privileged: spec.privileged,
        })
    }

    fn group(&mut self) -> Result<&mut Group, Fault> {
        self.group
            .as_mut()
            .ok_or_else(|| Fault::state("the container was deleted"))
    }

    /// The process of a stream ended.
    fn ended(&mut self, id: StreamId, host: &mut dyn Host) {
        let Some(mut exit) = self.streams.get_mut(&id).and_then(|s| s.ended(host)) else {
            return;
        };
        self.streams.remove(&id);
        if id == MAIN {
            if !self.container.namespaces.pid.is_own()
                && let Some(group) = &self.group
            {
                // Nothing else ends what it left: its namespace of process ids goes on.
                group.kill();
            }
            exit.oom = self.group.as_ref().is_some_and(|g| g.oom_kills() > 0);
            self.oom.end(host);
        }
        host.exited(id, exit);
    }

    /// Reaps what nobody else waits for.
    fn reap_strangers(&self) {
        let known = |pid: u32| {
            self.streams.values().any(|s| s.child.pid == pid)
                || self.created.as_ref().is_some_and(|(child, _)| child.pid == pid)
        };
        program::children()
            .into_iter()
            .filter(|pid| !known(*pid))
            .for_each(program::reap);
    }

    /// Ends every process, and waits for the end of each.
    fn kill_all(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        self.oom.end(host);
        let what = || "kill the container's processes".into();
        let created: Vec<Child> = self.created.take().map(|(child, _)| child).into_iter().collect();
        // Execs come before the first process: that one ends only after all others were reaped.
        let streams: Vec<(StreamId, Stream)> = std::mem::take(&mut self.streams).into_iter().rev().collect();
        let children = || created.iter().chain(streams.iter().map(|(_, s)| &s.child));
        children().try_for_each(|c| c.signal(SIGKILL)).step(what)?;
        if let Some(group) = &self.group
            && children().next().is_some()
        {
            // A frozen process dies only when thawed. If it cannot be, the wait below says so.
            let _ = group.thaw();
            if !self.container.namespaces.pid.is_own() {
                group.kill();
            }
        }
        created.iter().try_for_each(|c| end_of(c).map(drop)).step(what)?;
        for (id, mut stream) in streams {
            let ended = end_of(&stream.child).step(what)?;
            stream.drain(host);
            host.exited(
                id,
                Exit {
                    code: ended.code(),
                    signal: ended.signal(),
                    ..Exit::default()
                },
            );
        }
        Ok(())
    }

    fn remove(&mut self, host: &mut dyn Host) -> Result<(), Error> {
        self.kill_all(host)?;
        if self.told {
            // It may know nothing of it, if it failed to make it; what it leaves is removed below in any case.
            let _ = self
                .program
                .call(&Call::plain("delete the container", &["delete", "--force"]));
            self.told = false;
        }
        // Nothing of it runs any more, and whoever is left serves nobody.
        program::end_others(&[]);
        if let Some(place) = &mut self.place {
            place.undo()?;
            self.place = None;
        }
        // After that, so that the control groups are seen as they are.
        let (parent, name) = self.config.cgroup.rsplit_once('/').unwrap_or(("", &self.config.cgroup));
        cgroup::clear(parent, name).step(|| format!("remove control group {}", self.config.cgroup))?;
        self.group = None;
        remove_state(&self.program.state())?;
        if let Some(ends) = self.ends.take() {
            host.unwatch(ends.as_fd());
        }
        Ok(())
    }
}

/// What another runtime is not asked for.
fn refuse(config: &ShimConfig, c: &Container, runtime: &OciRuntime) -> Result<(), Error> {
    let plain_v1 = cgroup::version() == Version::V1;
    let huge = !config.limits.hugetlb.is_empty() && !Path::new(cgroup::ROOT).join("hugetlb").exists();
    let refused = [
        (c.system, "an init system inside"),
        (c.namespaces.user.is_some(), "a user namespace of its own"),
        (
            plain_v1 && huge,
            "a limit on huge pages beside control groups of version 1",
        ),
        (
            plain_v1 && !config.limits.unified.is_empty(),
            "a limit of version 2 beside control groups of version 1",
        ),
    ];
    match refused.iter().find(|(asked, _)| *asked) {
        Some((_, what)) => Err(Error::OnlyOwn {
            what,
            runtime: runtime.name.clone(),
        }),
        None => Ok(()),
    }
}

/// The process whose id a runtime wrote down: a child of this one by now.
fn take_over(pid_file: &Path, runtime: &str, verb: &'static str) -> Result<Child, Error> {
    let failed = |said: String| Error::Runtime {
        runtime: runtime.to_owned(),
        verb,
        said,
        code: ErrorCode::Failed,
    };
    let text = fs::read_to_string(pid_file)
        .map_err(|e| failed(format!("it wrote no process id to {}: {e}", pid_file.display())))?;
    let pid: u32 = text.trim().parse().map_err(|_| {
        failed(format!(
            "it wrote {text:?} to {}, which is no process id",
            pid_file.display()
        ))
    })?;
    if !program::children().contains(&pid) {
        return Err(failed(format!(
            "process {pid} that it named is not the shim's: the runtime must leave it when it ends"
        )));
    }
    let pidfd = biga_sys::process::open_pidfd(pid).step(|| format!("hold process {pid}"))?;
    Ok(Child { pid, pidfd })
}

/// This program is also the init.
fn place_init(path: &Path) -> Result<(), Error> {
    let what = || format!("write the init to {}", path.display());
    fs::copy("/proc/self/exe", path).step(what)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).step(what)
}

fn write(path: &Path, document: &impl serde::Serialize) -> Result<(), Error> {
    let what = || format!("write {}", path.display());
    let document = bare(document).map_err(io::Error::from).step(what)?;
    fs::write(path, document.to_string()).step(what)
}

/// Removes what a runtime kept of a container; never what is mounted there.
fn remove_state(dir: &Path) -> Result<(), Error> {
    let what = || format!("remove {}", dir.display());
    if place::mounted_below(dir) {
        return Err(io::Error::other("the runtime left something mounted there")).step(what);
    }
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e).step(what),
        _ => Ok(()),
    }
}

impl Workload for ExternalWorkload {
    fn create(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.make(host).map_err(|e| {
            // The first error is the telling one.
            let _ = self.delete(host);
            e.into()
        })
    }

    fn start(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        let pid = self.launch(host)?;
        host.started(MAIN, Ok(pid));
        Ok(())
    }

    fn exec(&mut self, stream: StreamId, spec: &ExecSpec, host: &mut dyn Host) -> Result<(), Fault> {
        let pid = self.spawn(stream, spec, host)?;
        host.started(stream, Ok(pid));
        Ok(())
    }

    fn signal(&mut self, stream: StreamId, signal: i32, _host: &mut dyn Host) -> Result<(), Fault> {
        let Some(s) = self.streams.get(&stream) else {
            return Err(Fault::state("the process ended already"));
        };
        if !(1..=biga_sys::signal::MAX).contains(&signal) {
            return Err(Fault::new(ErrorCode::Invalid, format!("there is no signal {signal}")));
        }
        let told = match stream {
            // A runtime may have a process in between.
            MAIN => {
                let number = signal.to_string();
                self.program.call(&Call {
                    rest: &[&number],
                    ..Call::plain("signal the container", &["kill"])
                })
            }
            _ => s.child.signal(signal).step(|| format!("send signal {signal}")),
        };
        match told {
            // Nothing that a runtime says may keep it alive.
            Err(_) if signal == SIGKILL => Ok(s.child.signal(signal).step(|| "kill the process".into())?),
            other => Ok(other?),
        }
    }

    fn input(&mut self, stream: StreamId, bytes: &[u8], host: &mut dyn Host) -> usize {
        self.streams
            .get_mut(&stream)
            .map_or(bytes.len(), |s| s.input(bytes, host))
    }

    fn close_input(&mut self, stream: StreamId, host: &mut dyn Host) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.close_input(host);
        }
    }

    fn resize(&mut self, stream: StreamId, rows: u16, cols: u16, _host: &mut dyn Host) {
        match (self.streams.get(&stream), &self.created) {
            (Some(s), _) => s.resize(rows, cols),
            (None, Some((_, Ends::Terminal(t)))) if stream == MAIN => {
                // The child may be gone; starting it will tell.
                let _ = setup::resize(t, rows, cols);
            }
            _ => {}
        }
    }

    fn output_room(&mut self, stream: StreamId, host: &mut dyn Host) {
        if let Some(s) = self.streams.get_mut(&stream) {
            s.output_room(host);
        }
    }

    fn console(&self) -> Option<StreamId> {
        None
    }

    fn pause(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        Ok(self.program.call(&Call::plain("pause the container", &["pause"]))?)
    }

    fn resume(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        match self.program.call(&Call::plain("resume the container", &["resume"])) {
            // Some thaw what they kill.
            Err(_) if self.group.as_ref().is_some_and(|g| g.exists() && !g.is_frozen()) => Ok(()),
            other => Ok(other?),
        }
    }

    fn update(&mut self, limits: &Limits, _host: &mut dyn Host) -> Result<(), Fault> {
        let file = self.program.file("update.json");
        write(&file, &limits::resources(limits)?)?;
        let path = file.to_string_lossy();
        let args = ["update", "--resources", path.as_ref()];
        self.program.call(&Call::plain("change the limits", &args))?;
        let group = self.group()?;
        if group.exists() {
            group.update(limits)?;
        }
        Ok(())
    }

    fn stats(&mut self, _host: &mut dyn Host) -> Result<Stats, Fault> {
        let host_network = self.container.host_network;
        let pid = self.streams.get(&MAIN).map(|s| s.child.pid);
        let mut stats = self.group()?.stats();
        if let (Some(pid), false) = (pid, host_network) {
            let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap_or_default();
            (stats.net_rx, stats.net_tx) = traffic(&text);
        }
        Ok(stats)
    }

    fn pids(&mut self, _host: &mut dyn Host) -> Result<Vec<u32>, Fault> {
        self.group()?
            .pids()
            .map_err(|e| Fault::failed(format!("cannot list the container's processes: {e}")))
    }

    fn ready(&mut self, token: u32, ready: Interest, host: &mut dyn Host) {
        match token {
            OOM => return self.oom.ready(self.group.as_ref(), host),
            CHILDREN => {
                if let Some(ends) = &self.ends {
                    while let Ok(Some(_)) = signal::read(ends) {}
                }
                return self.reap_strangers();
            }
            _ => {}
        }
        let (id, part) = stream::split(token);
        let ended = self.streams.get_mut(&id).is_some_and(|s| s.ready(part, ready, host));
        if ended {
            self.ended(id, host);
        }
    }

    fn timer(&mut self, token: u32, host: &mut dyn Host) {
        if token == OOM {
            self.oom.timer(self.group.as_ref(), host);
        }
    }

    fn delete(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        Ok(self.remove(host)?)
    }
}

//! A container that is saved by CRIU while it runs, and one that goes on from what was saved.
//!
//! Saving goes on beside everything else: CRIU is a child that is waited for like any other. The end of a container that is saved
//! and not left running is kept back until CRIU says that all is written, so that it is told as what it is.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use biga_sys::process::{self, Child, Ended};
use biga_wire::checkpoint::{CheckpointSpec, IMAGES_DIR, Restore, SAVED_FILE, Saved};
use biga_wire::shim::Exit;
use biga_wire::workload::{Host, Interest, MAIN};

use super::{ContainerWorkload, SAVING, SIGKILL, set_nonblocking, streams};
use crate::criu;
use crate::error::{Context, Error};
use crate::restored::{self, Again};
use crate::stream::Stream;
use crate::{mounts, namespaces};

/// CRIU's log of the last checkpoint, in the state directory.
const SAVE_LOG: &str = "checkpoint.log";
/// CRIU's log of the last restore, in the state directory.
const RESTORE_LOG: &str = "restore.log";

/// CRIU at work.
#[derive(Debug)]
pub(super) struct Saving {
    child: Child,
    spec: CheckpointSpec,
    saved: Saved,
    /// The directory it writes into; it gets its name when all is there.
    new: PathBuf,
    /// The end of the container, which came first.
    ended: Option<Exit>,
}

impl ContainerWorkload {
    /// Begins to save the processes.
    pub(super) fn save(&mut self, spec: &CheckpointSpec, host: &mut dyn Host) -> Result<(), Error> {
        if self.saving.is_some() {
            return Err(Error::State("it is being checkpointed already"));
        }
        let Some(main) = self.streams.get(&MAIN) else {
            return Err(Error::State("the container does not run"));
        };
        restored::supported(&self.container)?;
        let pids = self.group.as_ref().map_or(Ok(Vec::new()), |g| g.pids());
        let pids = pids.step(|| "list the container's processes".into())?;
        let (mut saved, external) = restored::outside(main.child.pid, &pids, &self.container)?;
        saved.streams = main.pipes();
        saved.left_running = spec.leave_running;
        saved.tcp_established = spec.tcp_established;
        let new = spec.dir.with_file_name(new_name(&spec.dir));
        let images = new.join(IMAGES_DIR);
        let _ = fs::remove_dir_all(&new);
        let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(&images);
        made.step(|| format!("make {}", images.display()))?;
        let dump = criu::Dump {
            program: &spec.program,
            pid: main.child.pid,
            images: &images,
            external: &external,
            leave_running: spec.leave_running,
            options: &options(spec.tcp_established),
        };
        let begun = self.log(SAVE_LOG).and_then(|log| {
            let what = || format!("run {}", spec.program.display());
            let child = dump.spawn(log).step(what)?;
            // It was not waited for, so its id is its own.
            let pidfd = process::open_pidfd(child.id()).step(what)?;
            host.watch(pidfd.as_fd(), SAVING, Interest::READ).step(what)?;
            Ok(Child { pid: child.id(), pidfd })
        });
        let child = begun.inspect_err(|_| drop(fs::remove_dir_all(&new)))?;
        self.saving = Some(Saving {
            child,
            spec: spec.clone(),
            saved,
            new,
            ended: None,
        });
        Ok(())
    }

    fn log(&self, name: &str) -> Result<File, Error> {
        let path = self.config.state_dir.join(name);
        File::create(&path).step(|| format!("write {}", path.display()))
    }

    /// CRIU ended.
    pub(super) fn saving_ended(&mut self, host: &mut dyn Host) {
        let Some(saving) = &self.saving else { return };
        let ended = match saving.child.wait(false) {
            Ok(None) => return,
            Ok(Some(ended)) => Ok(ended),
            Err(e) => Err(e),
        };
        let Some(mut saving) = self.saving.take() else { return };
        host.unwatch(saving.child.pidfd.as_fd());
        let result = self.keep_images(&mut saving, ended);
        if result.is_err() {
            // Of no use, and large.
            let _ = fs::remove_dir_all(&saving.new);
        }
        self.checkpointed = result.is_ok() && !saving.spec.leave_running;
        host.checkpointed(result.map_err(Into::into));
        if let Some(mut exit) = saving.ended {
            exit.checkpointed = self.checkpointed;
            host.exited(MAIN, exit);
        }
    }

    fn keep_images(&self, saving: &mut Saving, ended: io::Result<Ended>) -> Result<(), Error> {
        if !matches!(ended, Ok(Ended::Code(0))) {
            return Err(self.criu_failed("save it", SAVE_LOG));
        }
        let what = || format!("write {}", saving.new.join(SAVED_FILE).display());
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        saving.saved.created_ns = since.map_or(0, |d| d.as_nanos() as u64);
        let text = serde_json::to_vec(&saving.saved).map_err(io::Error::other).step(what)?;
        let file = File::create(saving.new.join(SAVED_FILE)).step(what)?;
        io::Write::write_all(&mut &file, &text).step(what)?;
        file.sync_all().step(what)?;
        fs::rename(&saving.new, &saving.spec.dir).step(|| format!("make {}", saving.spec.dir.display()))
    }

    fn criu_failed(&self, what: &'static str, log: &str) -> Error {
        let path = self.config.state_dir.join(log);
        let text = fs::read(&path).unwrap_or_default();
        Error::Criu(criu::Error::Failed {
            what,
            reason: criu::reason(&text),
            log: Some(path),
        })
    }

    /// Keeps the container's end back while CRIU is still at work; gives it back where it is to be told now.
    pub(super) fn keep_end(&mut self, exit: Exit) -> Option<Exit> {
        match &mut self.saving {
            Some(saving) => {
                saving.ended = Some(exit);
                None
            }
            None => Some(exit),
        }
    }

    /// Ends CRIU: nobody waits for the checkpoint any more.
    pub(super) fn abandon_saving(&mut self, host: &mut dyn Host) {
        let Some(saving) = self.saving.take() else { return };
        host.unwatch(saving.child.pidfd.as_fd());
        // Killed, it leaves the processes as they are; they are killed next.
        let _ = saving.child.signal(SIGKILL);
        let _ = super::end_of(&saving.child);
        let _ = fs::remove_dir_all(&saving.new);
        host.checkpointed(Err(Error::Field(
            "the checkpoint",
            "the container was ended meanwhile".into(),
        )
        .into()));
        if let Some(exit) = saving.ended {
            host.exited(MAIN, exit);
        }
    }

    /// Lets the processes of a checkpoint go on in a container that is made around them; gives the first one.
    pub(super) fn go_on(&mut self, from: &Restore, host: &mut dyn Host) -> Result<Stream, Error> {
        restored::supported(&self.container)?;
        let text = fs::read(from.dir.join(SAVED_FILE));
        let saved: Result<Saved, _> = text.and_then(|t| serde_json::from_slice(&t).map_err(io::Error::other));
        let saved = saved.map_err(|e| Error::Checkpoint(from.dir.clone(), format!("it is not whole: {e}")))?;
        let pid_file = self.config.run_dir.join("restored.pid");
        let _ = fs::remove_file(&pid_file);
        let (theirs, ours) = streams(self.container.process.tty, self.container.process.stdin)?;
        let ours = ours.ok_or(Error::NoCheckpoint("a terminal"))?;
        let log = self.log(RESTORE_LOG)?;
        let again = Again {
            program: &from.program,
            images: &from.dir.join(IMAGES_DIR),
            saved: &saved,
            options: &options(saved.tcp_established),
            pid_file: &pid_file,
            stage: self.config.run_dir.join("outside"),
            entrances: self.group.as_ref().map(|g| g.entrances()).unwrap_or_default(),
            own_group: self.container.namespaces.cgroup.is_own(),
            network: self.container.netns.as_ref().map(namespaces::open).transpose()?,
            nulls: restored::open_nulls(&saved)?,
        };
        let blocks = mounts::blocks(&self.container)?;
        let (state_dir, run_dir) = (&self.config.state_dir, &self.config.run_dir);
        let ready = || restored::ready(&self.container, blocks, state_dir, run_dir);
        let criu = restored::run(again, theirs, log, ready)?;
        if criu != Ended::Code(0) {
            self.end_restored();
            return Err(self.criu_failed("restore it", RESTORE_LOG));
        }
        let found = restored::first_process(&pid_file);
        let child = found
            .inspect_err(|_| self.end_restored())
            .step(|| "find the restored process".into())?;
        let what = || "watch the process's streams".into();
        set_nonblocking(&ours).step(what)?;
        Stream::new(MAIN, child, ours, host).step(what)
    }

    /// Ends what a failed restore left: its processes are children of this one.
    fn end_restored(&self) {
        if let Some(group) = &self.group {
            group.kill();
        }
        while matches!(process::reap_any(), Ok(Some(_))) {}
    }
}

fn options(tcp_established: bool) -> Vec<std::ffi::OsString> {
    tcp_established
        .then(|| "--tcp-established".into())
        .into_iter()
        .collect()
}

/// A name that no checkpoint can have.
fn new_name(dir: &Path) -> std::ffi::OsString {
    let mut name = std::ffi::OsString::from(".new-");
    name.push(dir.file_name().unwrap_or_default());
    name
}

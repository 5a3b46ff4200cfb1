//! Several containers that share an instance's namespaces, as their shim holds them.
//!
//! Each is a [`ContainerWorkload`] that joins what is [`shared`] instead of making its own, in a control group below the
//! instance's. It is made anew at each start and undone at each end, before the end is told. What starts when is not decided
//! here.

mod shared;
mod view;

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::rc::Rc;

use biga_sys::process::Child;
use biga_wire::config::{self, Container, Limits, Log, Pod, PodContainer, ShimConfig};
use biga_wire::shim::{ExecSpec, Exit, Stats};
use biga_wire::workload::{
    Containers, Fault, Host, Interest, MAIN, MAX_CONTAINERS, StreamId, Workload, container_index, container_stream,
};

use crate::cgroup::Group;
use crate::error::Error;
use crate::workload::end_of;
use crate::{ContainerWorkload, setup};

pub(crate) use shared::Joined;
use shared::Shared;
use view::View;

/// Token of the end of the pod's process 1; no container has it.
const FIRST_ENDED: u32 = u32::MAX;
/// The group of that process below the pod's; no container is called so.
const FIRST_GROUP: &str = "_first";
const SIGKILL: i32 = 9;

/// A pod.
#[derive(Debug)]
pub struct PodWorkload {
    config: ShimConfig,
    pod: Pod,
    group: Option<Group>,
    first_group: Option<Group>,
    shared: Option<Rc<Shared>>,
    /// Process 1 of shared process ids.
    first: Option<Child>,
    /// In the order of the configuration; those that run.
    running: Vec<Option<ContainerWorkload>>,
    /// Which container an exec is in.
    execs: BTreeMap<StreamId, usize>,
}

impl PodWorkload {
    /// Checks what can be checked without doing anything. `pod` is what `config.workload` holds.
    pub fn new(config: ShimConfig, pod: Pod) -> Result<PodWorkload, Error> {
        if pod.containers.is_empty() || pod.containers.len() > MAX_CONTAINERS {
            let n = pod.containers.len();
            return Err(Error::Field(
                "the pod",
                format!("it has {n} containers, not 1 to {MAX_CONTAINERS}"),
            ));
        }
        if !pod.containers.iter().any(|c| c.name == pod.main) {
            return Err(Error::Field("the pod's main container", pod.main));
        }
        for name in pod.sysctls.keys() {
            let with = Container {
                host_network: pod.host_network,
                ..Container::default()
            };
            if !setup::own_sysctl(name, &with) {
                return Err(Error::Sysctl(name.clone()));
            }
        }
        let running = pod.containers.iter().map(|_| None).collect();
        let new = PodWorkload {
            config,
            pod,
            group: None,
            first_group: None,
            shared: None,
            first: None,
            running,
            execs: BTreeMap::new(),
        };
        for c in &new.pod.containers {
            if c.name.is_empty() || c.name.contains('/') {
                return Err(Error::Field("the name of a container", c.name.clone()));
            }
            if c.container.namespaces != config::Namespaces::default() {
                let why = format!("container {} of a pod shares what the pod shares", c.name);
                return Err(Error::Field("the namespaces", why));
            }
            ContainerWorkload::new(new.config_of(c), c.container.clone())?;
        }
        Ok(new)
    }

    /// A container's configuration, as if it were an instance.
    fn config_of(&self, c: &PodContainer) -> ShimConfig {
        ShimConfig {
            run_dir: PodContainer::dir(&self.config.run_dir, &c.name),
            state_dir: PodContainer::dir(&self.config.state_dir, &c.name),
            log: Log::default(),
            start: true,
            wait_attach_ms: 0,
            // Not the bare name, which could be that of a file of the kernel's.
            cgroup: format!("{}/c-{}", self.config.cgroup, c.name),
            limits: c.limits.clone(),
            workload: config::Workload::Container(Box::default()),
            ..self.config.clone()
        }
    }

    fn make(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.group = Some(Group::create(&self.config.cgroup, &self.config.limits, None)?);
        if self.pod.share_pids {
            let path = format!("{}/{FIRST_GROUP}", self.config.cgroup);
            self.first_group = Some(Group::create(&path, &Limits::default(), None)?);
        }
        let (shared, first) = shared::make(&self.pod, &self.config.run_dir, self.first_group.as_ref())?;
        self.shared = Some(Rc::new(shared));
        if let Some(first) = &first {
            host.watch(first.pidfd.as_fd(), FIRST_ENDED, Interest::READ)
                .map_err(|e| Fault::failed(format!("cannot wait for the pod's first process: {e}")))?;
        }
        self.first = first;
        Ok(())
    }

    fn group(&mut self) -> Result<&mut Group, Fault> {
        self.group
            .as_mut()
            .ok_or_else(|| Fault::state("the instance was deleted"))
    }

    fn index(&self, container: StreamId) -> Result<usize, Fault> {
        container_index(container)
            .filter(|i| *i < self.running.len())
            .ok_or_else(|| Fault::state("there is no such container"))
    }

    /// Calls a container that runs, and sees to its end if it came with that.
    fn within<T>(
        &mut self,
        index: usize,
        host: &mut dyn Host,
        call: impl FnOnce(&mut ContainerWorkload, &mut dyn Host) -> T,
    ) -> Option<T> {
        let main = container_stream(index)?;
        let workload = self.running.get_mut(index)?.as_mut()?;
        let mut view = View::new(&mut *host, index, main);
        let result = call(workload, &mut view);
        let (ended, gone) = (view.ended.take(), std::mem::take(&mut view.gone));
        gone.iter().for_each(|stream| {
            self.execs.remove(stream);
        });
        if let Some(exit) = ended {
            self.undo(index, exit, host);
        }
        Some(result)
    }

    fn within_fault<T>(
        &mut self,
        index: usize,
        host: &mut dyn Host,
        call: impl FnOnce(&mut ContainerWorkload, &mut dyn Host) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        self.within(index, host, call)
            .unwrap_or_else(|| Err(Fault::state(format!("container {} does not run", self.name(index)))))
    }

    fn name(&self, index: usize) -> &str {
        self.pod.containers.get(index).map_or("", |c| &c.name)
    }

    /// The entrypoint of a container ended: what is left of the container goes, and then the end is told.
    fn undo(&mut self, index: usize, mut exit: Exit, host: &mut dyn Host) {
        let (Some(main), Some(mut workload)) = (container_stream(index), self.running[index].take()) else {
            return;
        };
        let mut view = View::new(&mut *host, index, main);
        if let Err(fault) = workload.delete(&mut view) {
            let said = exit.error.take().map(|e| format!("{e}; ")).unwrap_or_default();
            exit.error = Some(format!("{said}it was not undone: {fault}"));
        }
        view.gone.iter().for_each(|stream| {
            self.execs.remove(stream);
        });
        host.exited(main, exit);
    }

    /// The container of a stream, and what the stream is to it.
    fn place(&self, stream: StreamId) -> Option<(usize, StreamId)> {
        match container_index(stream) {
            Some(index) => Some((index, MAIN)),
            None => Some((*self.execs.get(&stream)?, stream)),
        }
    }

    /// Without its process 1 nothing can run in the pod any more.
    fn first_ended(&mut self, host: &mut dyn Host) {
        let Some(first) = self.first.take() else { return };
        host.unwatch(first.pidfd.as_fd());
        let exit = Exit {
            code: 137,
            signal: Some(SIGKILL),
            error: Some("the process that held the instance's process ids was killed".into()),
            ..Exit::default()
        };
        // What is stuck is tried again when the instance is deleted.
        let _ = (first.wait(false), self.stop_all(host));
        host.exited(MAIN, exit);
    }

    /// Kills all containers, the last one first.
    fn stop_all(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        for index in 0..self.running.len() {
            // One that has just ended is no failure.
            let _ = self.within(index, host, |w, view| w.signal(MAIN, SIGKILL, view));
        }
        if let Some(group) = &self.group {
            // Frozen processes die only when thawed, and all are frozen as one. If that fails, the waits below say so.
            let _ = group.thaw();
        }
        let mut result = Ok(());
        for index in (0..self.running.len()).rev() {
            let deleted = self.within(index, host, |w, view| w.delete(view));
            result = result.and(deleted.unwrap_or(Ok(())));
            if result.is_ok()
                && let Some(slot) = self.running.get_mut(index)
            {
                // One that had no entrypoint yet ended without a word.
                *slot = None;
            }
        }
        result
    }

    fn end_first(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        let Some(first) = &self.first else { return Ok(()) };
        let failed = |e: std::io::Error| Fault::failed(format!("cannot end the pod's first process: {e}"));
        host.unwatch(first.pidfd.as_fd());
        first.signal(SIGKILL).map_err(failed)?;
        end_of(first).map_err(failed)?;
        self.first = None;
        Ok(())
    }
}

impl Workload for PodWorkload {
    fn create(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.make(host).inspect_err(|_| {
            // The first error is the telling one.
            let _ = self.delete(host);
        })
    }

    fn start(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        Err(Fault::state("containers of a pod are started one by one"))
    }

    fn exec(&mut self, _stream: StreamId, _spec: &ExecSpec, _host: &mut dyn Host) -> Result<(), Fault> {
        Err(Fault::state("name the container to run it in"))
    }

    fn signal(&mut self, stream: StreamId, signal: i32, host: &mut dyn Host) -> Result<(), Fault> {
        let (index, inside) = self
            .place(stream)
            .ok_or_else(|| Fault::state("the process ended already"))?;
        self.within_fault(index, host, |w, view| w.signal(inside, signal, view))
    }

    fn input(&mut self, stream: StreamId, bytes: &[u8], host: &mut dyn Host) -> usize {
        let taken = self
            .place(stream)
            .and_then(|(index, inside)| self.within(index, host, |w, view| w.input(inside, bytes, view)));
        taken.unwrap_or(bytes.len())
    }

    fn close_input(&mut self, stream: StreamId, host: &mut dyn Host) {
        if let Some((index, inside)) = self.place(stream) {
            self.within(index, host, |w, view| w.close_input(inside, view));
        }
    }

    fn resize(&mut self, stream: StreamId, rows: u16, cols: u16, host: &mut dyn Host) {
        if let Some((index, inside)) = self.place(stream) {
            self.within(index, host, |w, view| w.resize(inside, rows, cols, view));
        }
    }

    fn output_room(&mut self, stream: StreamId, host: &mut dyn Host) {
        if let Some((index, inside)) = self.place(stream) {
            self.within(index, host, |w, view| w.output_room(inside, view));
        }
    }

    fn console(&self) -> Option<StreamId> {
        None
    }

    fn pause(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        Ok(self.group()?.freeze()?)
    }

    fn resume(&mut self, _host: &mut dyn Host) -> Result<(), Fault> {
        Ok(self.group()?.thaw()?)
    }

    fn update(&mut self, limits: &Limits, host: &mut dyn Host) -> Result<(), Fault> {
        let pids = Workload::pids(self, host)?;
        Ok(self.group()?.update_with(limits, &pids)?)
    }

    fn stats(&mut self, host: &mut dyn Host) -> Result<Stats, Fault> {
        let mut all = self.group()?.stats();
        // Only these are not counted for groups below: the network is one, the rest adds up.
        for index in 0..self.running.len() {
            let Some(one) = self.within(index, host, |w, view| w.stats(view)).transpose()? else {
                continue;
            };
            (all.net_rx, all.net_tx) = (one.net_rx.max(all.net_rx), one.net_tx.max(all.net_tx));
            if crate::cgroup::version() == crate::cgroup::Version::V1 {
                all.block_read += one.block_read;
                all.block_write += one.block_write;
                all.oom_kills += one.oom_kills;
            }
        }
        Ok(all)
    }

    fn pids(&mut self, host: &mut dyn Host) -> Result<Vec<u32>, Fault> {
        let mut all = Vec::new();
        for index in 0..self.running.len() {
            all.extend(
                self.within(index, host, |w, view| w.pids(view))
                    .transpose()?
                    .unwrap_or_default(),
            );
        }
        Ok(all)
    }

    fn ready(&mut self, token: u32, ready: Interest, host: &mut dyn Host) {
        if token == FIRST_ENDED {
            return self.first_ended(host);
        }
        let (index, inside) = view::inner(token);
        self.within(index, host, |w, view| w.ready(inside, ready, view));
    }

    fn timer(&mut self, token: u32, host: &mut dyn Host) {
        let (index, inside) = view::inner(token);
        self.within(index, host, |w, view| w.timer(inside, view));
    }

    fn delete(&mut self, host: &mut dyn Host) -> Result<(), Fault> {
        self.stop_all(host)?;
        self.end_first(host)?;
        self.shared = None;
        for group in [&mut self.first_group, &mut self.group] {
            if let Some(g) = group {
                g.remove().map_err(|e| Fault::failed(e.to_string()))?;
            }
            *group = None;
        }
        Ok(())
    }

    fn containers(&mut self) -> Option<&mut dyn Containers> {
        Some(self)
    }
}

impl Containers for PodWorkload {
    fn start(&mut self, container: StreamId, host: &mut dyn Host) -> Result<(), Fault> {
        let index = self.index(container)?;
        if self.running[index].is_some() {
            return Err(Fault::state(format!("container {} runs already", self.name(index))));
        }
        let (Some(shared), Some(group)) = (&self.shared, &self.group) else {
            return Err(Fault::state("the instance was deleted"));
        };
        let c = &self.pod.containers[index];
        let joined = Joined {
            shared: shared.clone(),
            tmpfs: c.shared.clone(),
            entrances: group.named_entrances(),
        };
        let mut inside = c.container.clone();
        shared.apply(&mut inside);
        let mut workload = ContainerWorkload::in_pod(self.config_of(c), inside, joined)?;
        let mut view = View::new(&mut *host, index, container);
        workload.create(&mut view)?;
        if let Err(fault) = workload.start(&mut view) {
            // The first fault is the telling one.
            let _ = workload.delete(&mut view);
            return Err(fault);
        }
        self.running[index] = Some(workload);
        Ok(())
    }

    fn exec(
        &mut self,
        container: StreamId,
        stream: StreamId,
        spec: &ExecSpec,
        host: &mut dyn Host,
    ) -> Result<(), Fault> {
        let index = self.index(container)?;
        self.execs.insert(stream, index);
        let result = self.within_fault(index, host, |w, view| w.exec(stream, spec, view));
        if result.is_err() {
            self.execs.remove(&stream);
        }
        result
    }

    fn update(&mut self, container: StreamId, limits: &Limits, host: &mut dyn Host) -> Result<(), Fault> {
        let index = self.index(container)?;
        self.within_fault(index, host, |w, view| w.update(limits, view))
    }

    fn stats(&mut self, container: StreamId, host: &mut dyn Host) -> Result<Stats, Fault> {
        let index = self.index(container)?;
        self.within_fault(index, host, |w, view| w.stats(view))
    }

    fn pids(&mut self, container: StreamId, host: &mut dyn Host) -> Result<Vec<u32>, Fault> {
        let index = self.index(container)?;
        self.within_fault(index, host, |w, view| w.pids(view))
    }
}

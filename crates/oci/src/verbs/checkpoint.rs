//! `checkpoint` and `restore`, by CRIU, with the options of `runc`.
//!
//! Hooks are not run on a restore: what they would set up, as a network, is given by who calls.

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use biga_container::criu;
use biga_container::restored::{self, Again, Outside, Ready, SAVED_FILE, Saved};
use biga_sys::process::{self, Child, Ended};

use super::life::destroy;
use super::{absolute, find};
use crate::args::{Global, Known, Options};
use crate::create::{self, Undo};
use crate::error::{Error, Step};
use crate::namespaces::{Kind, Wanted};
use crate::options;
use crate::spec::Spec;
use crate::state::{Place, State, Status, read_spec, start_time};
use crate::{attend, limits, log, mounts, validate};

const HELP: &str = "\
usage: biga oci checkpoint [--image-path DIR] [--work-path DIR] [--leave-running] [--tcp-established]
                           [--ext-unix-sk] [--file-locks] [--empty-ns network] ID
       biga oci restore    [-b BUNDLE] [-d] [--image-path DIR] [--work-path DIR] [--pid-file PATH]
                           [--tcp-established] [--ext-unix-sk] [--file-locks] [--empty-ns network] ID
";

/// What both take.
const BOTH: [Known; 7] = [
    ("image-path", "", true),
    ("work-path", "", true),
    ("tcp-established", "", false),
    ("ext-unix-sk", "", false),
    ("file-locks", "", false),
    // The network is the caller's, and the control group is made anew: that is how it is done always.
    ("empty-ns", "", true),
    ("manage-cgroups-mode", "", true),
];
/// Of `runc`, and not to be had here.
const ABSENT: [&str; 9] = [
    "shell-job",
    "lazy-pages",
    "page-server",
    "pre-dump",
    "parent-path",
    "status-fd",
    "auto-dedup",
    "lsm-profile",
    "lsm-mount-context",
];

fn parse(rest: Vec<String>, more: &[Known]) -> Result<Option<Options>, Error> {
    if rest.iter().any(|a| a == "--help" || a == "-h") {
        // Engines ask so whether a runtime can do it.
        print!("{HELP}");
        return Ok(None);
    }
    let name = |a: &str| {
        a.trim_start_matches('-')
            .split('=')
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    if let Some(absent) = rest
        .iter()
        .filter(|a| a.starts_with('-'))
        .find(|a| ABSENT.contains(&name(a).as_str()))
    {
        return Err(Error::Usage(format!(
            "option {absent} is not supported by this runtime"
        )));
    }
    let options = Options::parse(rest, &[&BOTH[..], more].concat(), false)?;
    if let Some(other) = options.get("empty-ns").filter(|n| *n != "network") {
        return Err(Error::Usage(format!("--empty-ns takes network, not {other:?}")));
    }
    options.at_most(1)?;
    Ok(Some(options))
}

/// Options that CRIU has under the same name.
fn passed_on(o: &Options) -> Vec<OsString> {
    let all = ["tcp-established", "ext-unix-sk", "file-locks"];
    all.iter()
        .filter(|n| o.has(n))
        .map(|n| format!("--{n}").into())
        .collect()
}

/// Where images and log are. The images are memory of processes: made for this user only.
fn directories(o: &Options) -> Result<(PathBuf, PathBuf), Error> {
    let images = PathBuf::from(o.get("image-path").filter(|p| !p.is_empty()).unwrap_or("checkpoint"));
    let work = o
        .get("work-path")
        .filter(|p| !p.is_empty())
        .map_or_else(|| images.clone(), PathBuf::from);
    for dir in [&images, &work] {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.step(|| format!("make directory {}", dir.display()))?;
    }
    Ok((absolute(&images.to_string_lossy())?, absolute(&work.to_string_lossy())?))
}

fn log_file(path: &Path) -> Result<File, Error> {
    File::create(path).step(|| format!("write {}", path.display()))
}

fn failed(what: &'static str, log: PathBuf) -> Error {
    let text = fs::read(&log).unwrap_or_default();
    let reason = criu::reason(&text);
    let log = Some(log);
    Error::Container(criu::Error::Failed { what, reason, log }.into())
}

/// What CRIU cannot save apart from the rest of the host.
fn supported(spec: &Spec, wanted: &Wanted) -> Result<(), Error> {
    let joins = |k: Kind| wanted.joined(k).is_some();
    let refused = [
        (spec.process.as_ref().is_some_and(|p| p.terminal), "a terminal"),
        (wanted.has(Kind::User), "a user namespace"),
        (
            spec.linux
                .seccomp
                .as_ref()
                .is_some_and(biga_container::seccomp::profile::asks),
            "system calls that another program answers",
        ),
        (!wanted.is_new(Kind::Pid), "process ids that it shares"),
        (!wanted.is_new(Kind::Mount), "mounts that it shares"),
        (
            joins(Kind::Ipc) || joins(Kind::Uts) || joins(Kind::Time),
            "namespaces of another container beside its network",
        ),
    ];
    match refused.iter().find(|(has, _)| *has) {
        Some((_, what)) => Err(biga_container::Error::NoCheckpoint(what).into()),
        None => Ok(()),
    }
}

/// Binds of the configuration.
fn binds(spec: &Spec) -> Result<Vec<String>, Error> {
    let mut all = Vec::new();
    for m in &spec.mounts {
        let read = options::Options::read(&m.kind, &m.options)?;
        if read.bind.is_some() && !read.remount {
            all.push(m.destination.clone());
        }
    }
    Ok(all)
}

pub(super) fn checkpoint(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let Some(options) = parse(rest, &[("leave-running", "", false)])? else {
        return Ok(0);
    };
    let (place, state) = find(global, options.id()?)?;
    match state.status(&place) {
        Status::Running => {}
        status => {
            return Err(Error::State(format!(
                "cannot checkpoint container {}: it is {}",
                state.id,
                status.word()
            )));
        }
    }
    let spec = place.config()?;
    let wanted = Wanted::read(&spec.linux.namespaces)?;
    supported(&spec, &wanted)?;
    let program = criu::program(&global.criu).map_err(biga_container::Error::from)?;
    let (images, work) = directories(&options)?;
    let root = restored::root_of(state.pid)?;
    let known = binds(&spec)?
        .into_iter()
        .map(|target| (restored::mount_at(&root, &target), Outside::Mount { target }));
    let pids = state
        .group()
        .all_pids()
        .step(|| "list the container's processes".into())?;
    let (saved, external) = restored::look(state.pid, &pids, known.collect(), wanted.has(Kind::Network))?;
    drop(root);
    let dump = criu::Dump {
        program: &program,
        pid: state.pid,
        images: &images,
        external: &external,
        leave_running: options.has("leave-running"),
        options: &passed_on(&options),
    };
    let log = work.join("dump.log");
    let what = || format!("run {}", program.display());
    let ended = dump.spawn(log_file(&log)?).and_then(|mut c| c.wait()).step(what)?;
    if !ended.success() {
        return Err(failed("save it", log));
    }
    let text = serde_json::to_vec(&saved).map_err(std::io::Error::from);
    let path = images.join(SAVED_FILE);
    text.and_then(|t| fs::write(&path, t))
        .step(|| format!("write {}", path.display()))?;
    if !options.has("leave-running") {
        destroy(global, &place, &state)?;
    }
    Ok(0)
}

pub(super) fn restore(global: &Global, rest: Vec<String>) -> Result<i32, Error> {
    let more = [
        ("bundle", "b", true),
        ("detach", "d", false),
        ("pid-file", "", true),
        ("console-socket", "", true),
        ("no-subreaper", "", false),
        ("no-pivot", "", false),
    ];
    let Some(options) = parse(rest, &more)? else {
        return Ok(0);
    };
    let bundle = absolute(options.get("bundle").unwrap_or("."))?;
    let (spec, text) = read_spec(&bundle.join("config.json"))?;
    let wanted = Wanted::read(&spec.linux.namespaces)?;
    validate::spec(&spec, &wanted)?;
    supported(&spec, &wanted)?;
    let program = criu::program(&global.criu).map_err(biga_container::Error::from)?;
    let (images, work) = directories(&options)?;
    let path = images.join(SAVED_FILE);
    let saved = fs::read(&path).step(|| format!("read {}", path.display()))?;
    let saved: Saved = serde_json::from_slice(&saved).map_err(|source| Error::Json {
        path: path.display().to_string(),
        source,
    })?;
    let signals = match options.has("detach") {
        true => None,
        false => Some(attend::signals().step(|| "wait for signals".into())?),
    };

    let id = options.id()?;
    let place = Place::of(&global.root, id)?;
    place.make(id)?;
    let mut undo = Undo::new(&place);
    let cgroup = limits::path(id, &spec.linux.cgroups_path)?;
    let mut state = create::state(id, &bundle, &spec, &wanted, cgroup)?;
    let group = limits::create(&state.cgroup, spec.linux.resources.as_ref())?;
    let entrances = group.entrances();
    undo.group = Some(group);
    let pid_file = place.0.join("pid");
    let again = Again {
        program: &program,
        images: &images,
        saved: &saved,
        options: &passed_on(&options),
        pid_file: &pid_file,
        stage: place.0.join("outside"),
        entrances,
        own_group: wanted.is_new(Kind::Cgroup),
        network: wanted.joined(Kind::Network).map(|j| j.file()).transpose()?,
        nulls: restored::open_nulls(&saved)?,
    };
    let log = work.join("restore.log");
    let streams = own_streams()?;
    let ended = restored::run(again, Some(streams), log_file(&log)?, || {
        ready(&spec, &bundle, &state.rootfs)
    })?;
    if ended != Ended::Code(0) {
        state.group().kill();
        while matches!(process::reap_any(), Ok(Some(_))) {}
        return Err(failed("restore it", log));
    }
    let child = restored::first_process(&pid_file).step(|| "find the restored process".into())?;
    state.pid = child.pid;
    let started = start_time(child.pid).ok_or_else(|| create::died(&child));
    undo.child = Some(child);
    state.start_time = started?;
    place.save(&state, &text)?;
    if let Some(path) = options.get("pid-file").filter(|p| !p.is_empty()) {
        create::write_pid(Path::new(path), state.pid)?;
    }
    match (signals, undo.disarm()) {
        (Some(signals), Some(child)) => stay(global, &place, &state, &child, &signals),
        _ => Ok(0),
    }
}

fn stay(
    global: &Global,
    place: &Place,
    state: &State,
    child: &Child,
    signals: &std::os::fd::OwnedFd,
) -> Result<i32, Error> {
    let ended = attend::wait(child, signals, None).step(|| "wait for the container".into())?;
    if let Err(e) = destroy(global, place, state) {
        log::warning(global, &e.to_string());
    }
    Ok(ended.code())
}

/// The standard streams of this process, which become those of the container.
fn own_streams() -> Result<[std::os::fd::OwnedFd; 3], Error> {
    let copy = |number| biga_sys::fd::duplicate(number).step(|| "pass on the standard streams".into());
    Ok([copy(0)?, copy(1)?, copy(2)?])
}

/// Mounts the root, and opens what is bound into it.
fn ready(spec: &Spec, bundle: &Path, root: &Path) -> Result<Ready, biga_container::Error> {
    let failed = |e: Error| match e {
        Error::Container(e) => e,
        other => biga_container::Error::Field("config.json", other.to_string()),
    };
    let prepared = mounts::prepare(&spec.mounts, bundle, false, None).map_err(failed)?;
    let trees = prepared.into_iter().filter_map(mounts::Prepared::into_source).collect();
    restored::private_mounts()?;
    let tree = mounts::root(root, None).map_err(failed)?;
    if spec.root.as_ref().is_some_and(|r| r.readonly) {
        let read_only = biga_sys::mount::RDONLY;
        biga_sys::mount::set_attributes(&tree, read_only, false).map_err(|source| biga_container::Error::Step {
            what: "make the root read-only".into(),
            source,
        })?;
    }
    Ok(Ready {
        root: root.to_owned(),
        trees,
        own_files: bundle.to_owned(),
    })
}

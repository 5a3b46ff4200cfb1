//! One stage: its instructions, one after the other, on a draft.

use std::sync::Arc;

use biga_dockerfile::ignore::Ignore;
use biga_dockerfile::{Instruction, Mount, MountKind, Owner, Run, Step, Transfer, config};
use biga_image::files::Node;
use biga_image::{Draft, History, KeptLayer};
use biga_model::Timestamp;
use biga_wire::build::Event;
use serde_json::{Map, Value};

use crate::args::Args;
use crate::copy::{self, From, Means, Source, Task};
use crate::git::{self, Repository};
use crate::mounts::Wanted;
use crate::pick::{Picked, hex};
use crate::run::{Job, created_by, nothing_run};
use crate::stages::Building;
use crate::{Audience, Error};

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A stage in the making.
pub struct Stage {
    /// What it is so far.
    pub draft: Draft,
    /// Who listens.
    audience: Audience,
    /// Uses nothing of earlier builds.
    fresh: bool,
    /// Its config, with what the instruction at hand makes of it.
    config: Map<String, Value>,
    args: Args,
    /// A `CMD` of this stage is kept by a later `ENTRYPOINT`.
    cmd_set: bool,
}

/// What a step made before: its line of history, and the layer if it has one.
type Before = (History, Option<KeptLayer>);

impl Stage {
    /// Begins on a draft.
    pub fn new(draft: Draft, audience: Audience, fresh: bool) -> Stage {
        let mut config = draft.config();
        if config::variable(&config, "PATH").is_none() {
            config::env(&mut config, "PATH", DEFAULT_PATH);
        }
        Stage {
            draft,
            audience,
            fresh,
            config,
            args: Args::default(),
            cmd_set: false,
        }
    }

    /// The instructions that the base left for this build; they are taken off.
    pub fn triggers(&mut self) -> Vec<String> {
        match self.config.remove("OnBuild") {
            Some(Value::Array(all)) => all.iter().filter_map(|t| t.as_str().map(str::to_owned)).collect(),
            _ => Vec::new(),
        }
    }

    fn vars(&self) -> impl Fn(&str) -> Option<String> + use<> {
        let (args, config) = (self.args.clone(), self.config.clone());
        move |name| args.get(&config, name)
    }

    /// Carries out one instruction. `index` is the stage's number.
    pub async fn step(&mut self, b: &Building<'_>, index: usize, step: &Step) -> Result<(), Error> {
        let at = |e: String| Error::Invalid(format!("dockerfile parse error on line {}: {e}", step.line));
        let vars = self.vars();
        let instruction = step.instruction.expand(b.file().escape, &vars).map_err(at)?;
        match &instruction {
            Instruction::From { .. } => return Err(at("FROM begins a stage".into())),
            Instruction::Run(run) => return self.run(b, index, run).await,
            Instruction::Copy(transfer) => return self.copy(b, index, transfer).await,
            Instruction::Workdir(_) => return self.workdir(b, &instruction).await,
            Instruction::Arg(list) => {
                for (name, default) in list {
                    self.args.declare(&mut b.globals.lock(), name, default.clone());
                }
            }
            Instruction::Maintainer(name) => self.draft.set_author(name),
            Instruction::Entrypoint(_) => {
                let cmd = self.config.get("Cmd").cloned().filter(|_| self.cmd_set);
                config::apply(&mut self.config, &instruction).map_err(|e| at(e.to_string()))?;
                if let Some(cmd) = cmd {
                    self.config.insert("Cmd".into(), cmd);
                }
            }
            other => {
                self.cmd_set |= matches!(other, Instruction::Cmd(_));
                config::apply(&mut self.config, other).map_err(|e| at(e.to_string()))?;
            }
        }
        let remark = config::remark(&instruction, &self.config).unwrap_or_default();
        // The space is Docker's: it joins words of which one ends with a space.
        let by = nothing_run(&self.config, &format!(" {remark}"));
        let (key, hit) = self.known(b, &by)?;
        if hit.is_some() {
            self.audience.tell(Event::Cached).await?;
        }
        self.keep(by, key, hit, None).await
    }

    /// The key of a step, and the outcome it had before.
    fn known(&self, b: &Building<'_>, by: &str) -> Result<(String, Option<Before>), Error> {
        let key = key(&self.draft, by)?;
        let hit = b.lookup(&self.draft, &key, by).filter(|_| !self.fresh);
        Ok((key, hit))
    }

    /// Ends a step: what is new goes into the draft.
    async fn keep(
        &mut self,
        by: String,
        key: String,
        hit: Option<(History, Option<KeptLayer>)>,
        layer: Option<KeptLayer>,
    ) -> Result<(), Error> {
        self.draft.set_config(self.config.clone());
        let (step, layer) = match hit {
            Some((history, layer)) => (history, layer),
            None => {
                let author = self.draft.author();
                let step = History {
                    created: Some(Timestamp::now().to_string()),
                    created_by: Some(by),
                    author: (!author.is_empty()).then(|| author.to_owned()),
                    comment: None,
                    empty_layer: false,
                };
                (step, layer)
            }
        };
        self.draft.step(step, layer, Some(key));
        let image = self.draft.id()?.to_string();
        self.audience.tell(Event::Made { image }).await
    }

    fn means(&self, b: &Building<'_>) -> Means {
        let store = b.prepared.builder.store().clone();
        Means {
            layers: store.draft_layers(&self.draft),
            mounts: b.prepared.builder.engine.mounts.clone(),
            store,
        }
    }

    async fn workdir(&mut self, b: &Building<'_>, instruction: &Instruction) -> Result<(), Error> {
        config::apply(&mut self.config, instruction).map_err(|e| Error::Invalid(e.to_string()))?;
        let dir = self.working_dir();
        let by = nothing_run(&self.config, &format!("WORKDIR {dir}"));
        let (key, hit) = self.known(b, &by)?;
        if hit.is_some() {
            self.audience.tell(Event::Cached).await?;
            return self.keep(by, key, hit, None).await;
        }
        let layer = self.audience.wait(copy::directory(dir, self.means(b), now())).await?;
        self.keep(by, key, None, Some(layer)).await
    }

    fn working_dir(&self) -> String {
        let dir = self
            .config
            .get("WorkingDir")
            .and_then(Value::as_str)
            .unwrap_or_default();
        config::clean(dir)
    }

    async fn run(&mut self, b: &Building<'_>, index: usize, run: &Run) -> Result<(), Error> {
        match run.network.as_deref() {
            None | Some("default" | "none" | "host") => {}
            Some(other) => {
                return Err(Error::Invalid(format!(
                    "invalid network mode for RUN: {other}: it is default, none or host"
                )));
            }
        }
        if run.security.as_deref().is_some_and(|s| s != "sandbox") {
            return Err(Error::Unsupported(
                "RUN --security=insecure is not supported by Biga".into(),
            ));
        }
        let escape = b.file().escape;
        let words = run.line(escape).words(&self.config);
        let args = self.args.of_run(&self.config);
        let mut by = created_by(&words, &args);
        if let Some(network) = &run.network {
            by = format!("{by} # --network={network}");
        }
        let mounts = self.mounts(b, index, run).await?;
        for (text, wanted) in run.mounts.iter().zip(&mounts) {
            // What a cache holds says nothing of the outcome, and nobody is told what a secret is.
            by = match &wanted.files {
                Some((_, shown)) if wanted.mount.kind == MountKind::Bind => {
                    format!("{by} # --mount={text} {}", shown.digest)
                }
                _ => format!("{by} # --mount={text}"),
            };
        }
        let (key, hit) = self.known(b, &by)?;
        if hit.is_some() {
            self.audience.tell(Event::Cached).await?;
            return self.keep(by, key, hit, None).await;
        }
        let mut env = args;
        env.extend(self.args.hidden(&b.globals.lock(), &self.config));
        let workdir = self.working_dir();
        let mounted = b.prepared.mount(mounts, &workdir, || self.means(b));
        let mounted = self.audience.wait(mounted).await?;
        env.extend(mounted.env.iter().cloned());
        let job = Job {
            mounted,
            script: run.script(escape).map(str::to_owned),
            words,
            env,
            network: run.network.clone().filter(|n| n != "default"),
        };
        let mut from = self.draft.clone();
        from.set_config(self.config.clone());
        let layer = {
            let _permit = self.audience.wait(b.permit()).await?;
            b.prepared.run_step(&from, job, &self.audience).await?
        };
        self.keep(by, key, None, Some(layer)).await
    }

    /// What a `RUN` mounts, with the files of mounts that show some.
    async fn mounts(&self, b: &Building<'_>, index: usize, run: &Run) -> Result<Vec<Wanted>, Error> {
        let mut all = Vec::new();
        for text in &run.mounts {
            let mount = Mount::parse(text).map_err(|e| Error::Invalid(format!("RUN --mount={text}: {e}")))?;
            let shows = mount.kind == MountKind::Bind || (mount.kind == MountKind::Cache && mount.from.is_some());
            let files = match shows {
                false => None,
                true => {
                    let task = Arc::new(mount_task(b, index, &mount, &self.audience).await?);
                    let mounts = b.prepared.builder.engine.mounts.clone();
                    let shown = self.audience.wait(copy::look(task.clone(), mounts)).await?;
                    Some((task, shown))
                }
            };
            all.push(Wanted { mount, files });
        }
        Ok(all)
    }

    async fn copy(&mut self, b: &Building<'_>, index: usize, t: &Transfer) -> Result<(), Error> {
        let name = if t.add { "ADD" } else { "COPY" };
        let from = match &t.from {
            None => From::Context(b.prepared.context.clone()),
            Some(word) => from(b, word, index, &self.audience).await?,
        };
        let mut task = Task {
            name,
            from,
            sources: Vec::new(),
            dest: copy::destination(&t.dest, &self.working_dir()),
            owner: match t.chown.as_deref() {
                None | Some("") => None,
                Some(text) => Some(
                    Owner::parse(text).ok_or_else(|| Error::Invalid(format!("invalid chown string format: {text}")))?,
                ),
            },
            mode: t.chmod.as_deref().map(mode).transpose()?,
            excludes: Ignore::parse(&t.excludes.join("\n")).map_err(Error::Invalid)?,
            parents: t.parents,
            unpack: t.unpack.unwrap_or(t.add),
            keep_owner: false,
            now: now(),
        };
        let mut fetched = false;
        for source in &t.sources {
            task.sources.push(match t.add && is_address(source) {
                true => {
                    fetched = true;
                    Source::Here(self.audience.wait(fetch(b, t, source)).await?)
                }
                false => Source::Path(source.clone()),
            });
        }
        if t.checksum.is_some() && !fetched {
            return Err(Error::Invalid("checksum can't be specified for local sources".into()));
        }
        // What is fetched is a file; archives are unpacked where they come from the context.
        task.unpack &= !fetched || t.unpack == Some(true);
        for d in &t.documents {
            task.sources.push(Source::Here(Picked {
                name: d.name.clone().into_bytes(),
                node: Node::file(d.content.as_bytes(), 0o644, (0, 0)),
                beneath: Vec::new(),
            }));
        }
        let mut options = String::new();
        for (option, value) in [("chown", &t.chown), ("chmod", &t.chmod)] {
            if let Some(value) = value {
                options += &format!("--{option}={value} ");
            }
        }
        let config = self.config.clone();
        let dest = t.dest.clone();
        let by = move |digest: &str| nothing_run(&config, &format!("{name} {options}{digest} in {dest} "));
        let (draft, cache, write, fresh) = (self.draft.clone(), b.cache(), by.clone(), self.fresh);
        let known = move |digest: &str| {
            let by = write(digest);
            cache.lookup(&draft, &key(&draft, &by).ok()?, &by).filter(|_| !fresh)
        };
        let (digest, outcome) = self.audience.wait(copy::copy(task, self.means(b), known)).await?;
        let by = by(&digest);
        let key = key(&self.draft, &by)?;
        match outcome {
            Ok(hit) => {
                self.audience.tell(Event::Cached).await?;
                self.keep(by, key, Some(hit), None).await
            }
            Err(layer) => self.keep(by, key, None, Some(layer)).await,
        }
    }
}

/// What `--from` means.
async fn from(b: &Building<'_>, word: &str, index: usize, audience: &Audience) -> Result<From, Error> {
    Ok(match b.prepared.named.get(word) {
        Some(context) => From::Context(context.clone()),
        None => From::Layers(b.layers_of(word, index, audience).await?),
    })
}

/// The files that a mount shows, as if they were copied to a directory of their own.
async fn mount_task(b: &Building<'_>, index: usize, mount: &Mount, audience: &Audience) -> Result<Task, Error> {
    let from = match mount.from.as_deref() {
        None => From::Context(b.prepared.context.clone()),
        // Of an empty tree there is nothing to show but a directory.
        Some(word) => from(b, word, index, audience).await?,
    };
    Ok(Task {
        name: "RUN --mount",
        from,
        sources: vec![Source::Path(match mount.source.as_str() {
            "" => "/".into(),
            path => path.into(),
        })],
        dest: "/".into(),
        owner: None,
        mode: None,
        excludes: Ignore::default(),
        parents: false,
        unpack: false,
        keep_owner: true,
        now: now(),
    })
}

/// What a step is made of: all before it, and what it says.
fn key(draft: &Draft, by: &str) -> Result<String, Error> {
    use sha2::{Digest, Sha256};
    let text = format!("{}\n{by}", draft.id()?);
    Ok(hex(&Sha256::digest(text.as_bytes())))
}

fn now() -> (i64, u32) {
    (Timestamp::now().as_second(), 0)
}

fn mode(text: &str) -> Result<u32, Error> {
    let number = u32::from_str_radix(text, 8).ok().filter(|m| *m <= 0o7777);
    number.ok_or_else(|| {
        Error::Invalid(format!(
            "invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777"
        ))
    })
}

fn is_address(source: &str) -> bool {
    let is_web = source.starts_with("http://") || source.starts_with("https://");
    is_web || (git::is_repository(source) && !source.starts_with("github.com/"))
}

/// `ADD` of a repository: its files, without `.git` unless that is asked for.
async fn clone(b: &Building<'_>, t: &Transfer, address: &str) -> Result<Picked, Error> {
    if t.checksum.is_some() {
        return Err(Error::Unsupported(format!(
            "ADD --checksum {address}: a repository is known by its commit: name it behind a #"
        )));
    }
    let repository = Repository::parse(address)?;
    let builder = &b.prepared.builder;
    let files = builder.clone_repository(&repository, t.keep_git_dir).await?;
    Ok(Picked {
        name: Vec::new(),
        node: Node::dir(0o755, now()),
        beneath: files.beneath(b"").map(|(k, v)| (k.clone(), v.clone())).collect(),
    })
}

/// `ADD` of an address.
async fn fetch(b: &Building<'_>, t: &Transfer, address: &str) -> Result<Picked, Error> {
    if git::is_repository(address) {
        return clone(b, t, address).await;
    }
    let fetched = b.prepared.builder.store().fetch_file(address).await;
    let fetched = fetched.map_err(|e| Error::Failed(format!("ADD failed: {}", Error::from(e))))?;
    if let Some(wanted) = &t.checksum
        && *wanted != fetched.digest
    {
        return Err(Error::Failed(format!(
            "ADD failed: digest mismatch: {address} is {}, and --checksum says {wanted}",
            fetched.digest
        )));
    }
    let name = match fetched.name.as_str() {
        "" if t.dest.ends_with('/') => {
            return Err(Error::Invalid(format!("cannot determine filename from url: {address}")));
        }
        name => name.as_bytes().to_vec(),
    };
    let changed = fetched
        .last_modified
        .as_deref()
        .and_then(|t| jiff::fmt::rfc2822::parse(t).ok());
    let mtime = changed.map_or((0, 0), |z| (z.timestamp().as_second(), 0));
    let node = Node::of_file(fetched.file, 0o600, mtime).map_err(|e| Error::Failed(e.to_string()))?;
    Ok(Picked {
        name,
        node,
        beneath: Vec::new(),
    })
}

//! One of the two engines, with registries beside it and a user before it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, Stdio};

use biga_testkit::{PATIENCE, Ran, eventually, images};

use super::commands::{Command, Form};

/// Seconds that a command may take.
const PATIENT: &str = "60";

/// `me` with the password `secret`, as bcrypt with the lowest cost that the registry takes.
const LOGIN: &str = "me:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";

/// Makes a command that runs in the engine's network.
type Start<'a> = Box<dyn Fn(&[&str]) -> Process + Sync + Send + 'a>;

pub(super) struct Side<'a> {
    dir: PathBuf,
    host: String,
    /// How its names in the kernel begin.
    prefix: String,
    command: Start<'a>,
    registries: Vec<Child>,
}

impl<'a> Side<'a> {
    /// `command` makes one that runs in the engine's network.
    pub(super) fn new(
        dir: &Path,
        socket: &Path,
        prefix: &str,
        command: impl Fn(&[&str]) -> Process + Sync + Send + 'a,
    ) -> Side<'a> {
        let mut side = Side {
            dir: dir.into(),
            prefix: prefix.into(),
            host: format!("unix://{}", socket.display()),
            command: Box::new(command),
            registries: Vec::new(),
        };
        fs::create_dir_all(dir.join("work")).expect("make a directory");
        images::busybox_tar(dir);
        let htpasswd = dir.join("htpasswd");
        fs::write(&htpasswd, LOGIN).expect("write");
        side.registry(5000, "");
        let auth = format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            htpasswd.display()
        );
        side.registry(5001, &auth);
        side
    }

    fn registry(&mut self, port: u16, more: &str) {
        let at = self.dir.join(format!("registry-{port}"));
        let file = at.with_extension("yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{more}",
            at.display()
        );
        fs::write(&file, text).expect("write");
        let child = (self.command)(&["docker-registry", "serve", &file.display().to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.registries.push(child.expect("start a registry"));
        let probe = format!(": < /dev/tcp/127.0.0.1/{port}");
        eventually("the registry's first answer", || {
            let ran = (self.command)(&["bash", "-c", &probe]).output().expect("bash runs");
            ran.status.success().then_some(())
        });
    }

    /// Types all of it, one after the other.
    pub(super) fn run(&self, commands: &[Command]) -> Vec<Ran> {
        commands.iter().map(|c| self.one(c)).collect()
    }

    fn one(&self, command: &Command) -> Ran {
        let ran = match command.form {
            Form::Awaits => eventually(&format!("{}: {}", self.host, command.line), || {
                let ran = self.shell(&command.line);
                (ran.code == 0).then_some(ran)
            }),
            _ => self.shell(&command.line),
        };
        if command.form == Form::Prepares {
            assert!(ran.code == 0, "{}: {}: {}{}", self.host, command.line, ran.out, ran.err);
        }
        let own = |text: String| {
            let text = text.replace(&self.dir.display().to_string(), "$T");
            text.replace(&self.prefix, "$PREFIX")
        };
        Ran {
            code: ran.code,
            out: own(ran.out),
            err: own(ran.err),
        }
    }

    fn shell(&self, line: &str) -> Ran {
        let work = self.dir.join("work");
        let mut c = (self.command)(&["timeout", "-k", "1", PATIENT, "bash", "-c", line]);
        // Nobody's settings and logins take part.
        c.env_clear().current_dir(&work).env("T", &self.dir);
        c.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        c.env("HOME", &work).env("DOCKER_CONFIG", self.dir.join("docker"));
        c.env("DOCKER_HOST", &self.host).env("LC_ALL", "C").env("TZ", "UTC");
        c.env("DOCKER_CLI_HINTS", "false");
        assert!(PATIENCE.as_secs() > 60, "a command gives up before we do");
        Ran::from(c.output().expect("start a shell"))
    }
}

impl Drop for Side<'_> {
    fn drop(&mut self) {
        for registry in &mut self.registries {
            let _ = registry.kill();
            let _ = registry.wait();
        }
    }
}

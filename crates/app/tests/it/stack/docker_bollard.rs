//! bollard, Docker's client library for Rust.

use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::Pin;

use biga_testkit::{Daemon, PATIENCE};
use bollard::container::{AttachContainerResults, LogOutput};
use bollard::errors::Error;
use bollard::exec::StartExecResults;
use bollard::models::{
    ContainerCreateBody, ContainerUpdateBody, ExecConfig, HealthConfig, HealthStatusEnum, HostConfig,
    NetworkConnectRequest, NetworkCreateRequest, PortBinding, VolumeCreateRequest,
};
use bollard::query_parameters as query;
use bollard::{Docker, body_full};
use futures_util::{Stream, TryStreamExt};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::daemon;
use super::docker::socket;

/// All of a stream, which must end.
async fn all<T>(what: &str, stream: impl Stream<Item = Result<T, Error>>) -> Result<Vec<T>, Error> {
    let read = tokio::time::timeout(PATIENCE, stream.try_collect());
    read.await.unwrap_or_else(|_| panic!("{what} does not end"))
}

fn refused<T: Debug>(status: u16, answer: Result<T, Error>) -> String {
    match answer {
        Err(Error::DockerResponseServerError { status_code, message }) if status_code == status => message,
        other => panic!("{status} is not the answer: {other:?}"),
    }
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(ToString::to_string).collect())
}

fn filter(name: &str, value: &str) -> HashMap<String, Vec<String>> {
    HashMap::from([(name.into(), vec![value.into()])])
}

/// Standard output and standard error of what came.
fn outputs(seen: Vec<LogOutput>) -> (String, String) {
    let mut out = (String::new(), String::new());
    for one in seen {
        match one {
            LogOutput::StdErr { message } => out.1.push_str(&String::from_utf8_lossy(&message)),
            other => out.0.push_str(&other.to_string()),
        }
    }
    out
}

struct Tried {
    docker: Docker,
}

impl Tried {
    async fn run(&self, name: &str, command: &[&str], more: ContainerCreateBody) -> String {
        let options = query::CreateContainerOptionsBuilder::new().name(name).build();
        let body = ContainerCreateBody {
            image: Some("busybox".into()),
            cmd: words(command),
            stop_signal: Some("SIGKILL".into()),
            ..more
        };
        let made = self.docker.create_container(Some(options), body).await.unwrap();
        assert!(made.warnings.is_empty(), "{made:?}");
        self.docker
            .start_container(&made.id, None::<query::StartContainerOptions>)
            .await
            .unwrap();
        made.id
    }

    async fn remove(&self, name: &str) {
        let options = query::RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        self.docker.remove_container(name, Some(options)).await.unwrap();
    }

    async fn exec(&self, name: &str, config: ExecConfig) -> (String, String, i64) {
        let made = self.docker.create_exec(name, config).await.unwrap();
        let StartExecResults::Attached { output, .. } = self.docker.start_exec(&made.id, None).await.unwrap() else {
            panic!("it is not attached");
        };
        let (out, err) = outputs(all("an exec", output).await.unwrap());
        let known = self.docker.inspect_exec(&made.id).await.unwrap();
        (out, err, known.exit_code.expect("it has ended"))
    }

    async fn system(&self) {
        assert_eq!(self.docker.ping().await.unwrap(), "OK");
        let version = self.docker.version().await.unwrap();
        assert_eq!(version.os.as_deref(), Some("linux"));
        let info = self.docker.info().await.unwrap();
        assert_eq!((info.name.as_deref(), info.containers), (Some("test"), Some(0)));
        let df = self.docker.df(None::<query::DataUsageOptions>).await;
        assert!(df.is_ok(), "{df:?}");
        refused(503, self.docker.inspect_swarm().await);
        let plugins = self.docker.list_plugins(None::<query::ListPluginsOptions>).await;
        assert!(plugins.unwrap().is_empty());
    }

    async fn containers(&self) {
        let ports = HashMap::from([(
            "80/tcp".to_string(),
            Some(vec![PortBinding {
                host_ip: Some("127.0.0.1".into()),
                host_port: Some("8085".into()),
            }]),
        )]);
        let more = ContainerCreateBody {
            env: words(&["A=b"]),
            labels: Some(HashMap::from([("of".into(), "bollard".into())])),
            exposed_ports: words(&["80/tcp"]),
            healthcheck: Some(HealthConfig {
                test: words(&["CMD", "true"]),
                interval: Some(200_000_000),
                ..HealthConfig::default()
            }),
            host_config: Some(HostConfig {
                memory: Some(64 << 20),
                port_bindings: Some(ports),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let id = self.run("web", &["httpd", "-f", "-h", "/var/www"], more).await;
        let listed = query::ListContainersOptionsBuilder::new()
            .filters(&filter("label", "of=bollard"))
            .build();
        let listed = self.docker.list_containers(Some(listed)).await.unwrap();
        assert_eq!(listed.len(), 1);
        assert_eq!(listed[0].ports.as_ref().unwrap()[0].public_port, Some(8085));
        let doc = self.docker.inspect_container(&id, None).await.unwrap();
        assert_eq!(doc.host_config.unwrap().memory, Some(64 << 20));
        assert!(doc.config.unwrap().env.unwrap().contains(&"A=b".to_string()));
        loop {
            let doc = self.docker.inspect_container(&id, None).await.unwrap();
            match doc.state.unwrap().health.unwrap().status {
                Some(HealthStatusEnum::HEALTHY) => break,
                Some(HealthStatusEnum::STARTING) => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
                other => panic!("{other:?}"),
            }
        }
        let once = query::StatsOptionsBuilder::new().stream(false).build();
        let stats = all("stats", self.docker.stats(&id, Some(once))).await.unwrap();
        assert_eq!(stats[0].memory_stats.as_ref().unwrap().limit, Some(64 << 20));
        let top = self.docker.top_processes(&id, None::<query::TopOptions>).await.unwrap();
        assert!(top.processes.unwrap()[0].join(" ").contains("httpd"));
        self.docker.pause_container(&id).await.unwrap();
        self.docker.unpause_container(&id).await.unwrap();
        let update = ContainerUpdateBody {
            memory: Some(96 << 20),
            memory_swap: Some(96 << 20),
            ..ContainerUpdateBody::default()
        };
        self.docker.update_container(&id, update).await.unwrap();
        let name = query::RenameContainerOptionsBuilder::new().name("site").build();
        self.docker.rename_container(&id, name).await.unwrap();
        let quick = query::RestartContainerOptionsBuilder::new().t(0).build();
        self.docker.restart_container("site", Some(quick)).await.unwrap();
        let stop = query::StopContainerOptionsBuilder::new().t(0).build();
        self.docker.stop_container("site", Some(stop)).await.unwrap();
        let code = all("a wait", self.docker.wait_container("site", None)).await;
        assert!(
            matches!(code, Err(Error::DockerContainerWaitError { code: 137, .. })),
            "{code:?}"
        );
        self.remove("site").await;
        refused(404, self.docker.inspect_container("site", None).await);
    }

    async fn streams(&self) {
        let more = ContainerCreateBody {
            open_stdin: Some(true),
            stdin_once: Some(true),
            attach_stdin: Some(true),
            ..ContainerCreateBody::default()
        };
        let script = "while read -r l; do echo out $l; echo err $l >&2; done; exit 0";
        self.run("talk", &["sh", "-c", script], more).await;
        let options = query::AttachContainerOptionsBuilder::new()
            .stdin(true)
            .stdout(true)
            .stderr(true)
            .stream(true)
            .build();
        let attached = self.docker.attach_container("talk", Some(options)).await.unwrap();
        let AttachContainerResults { output, mut input } = attached;
        let text: String = (0..10_000).map(|i| format!("line {i}\n")).collect();
        let wanted = |word: &str| text.lines().map(|l| format!("{word} {l}\n")).collect::<String>();
        let sent = text.clone();
        let sending = tokio::spawn(async move {
            feed(&mut input, sent.as_bytes()).await;
        });
        let (out, err) = outputs(all("attach", output).await.unwrap());
        sending.await.unwrap();
        assert!(
            out == wanted("out") && err == wanted("err"),
            "{} {}",
            out.len(),
            err.len()
        );
        let ended = all("a wait", self.docker.wait_container("talk", None)).await.unwrap();
        assert_eq!(ended[0].status_code, 0);
        let logs = query::LogsOptionsBuilder::new().stdout(true).tail("2").build();
        let last = outputs(all("logs", self.docker.logs("talk", Some(logs))).await.unwrap());
        assert_eq!(last.0, "out line 9998\nout line 9999\n");
        let logs = query::LogsOptionsBuilder::new()
            .stderr(true)
            .follow(true)
            .timestamps(true)
            .build();
        let followed = outputs(all("logs", self.docker.logs("talk", Some(logs))).await.unwrap());
        assert_eq!(followed.1.matches("Z err line").count(), 10_000);
        self.remove("talk").await;
    }

    async fn execs(&self) {
        self.run("host", &["sleep", "1000"], ContainerCreateBody::default())
            .await;
        let config = ExecConfig {
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            cmd: words(&["sh", "-c", "echo $X; id -u >&2; pwd; exit 7"]),
            env: words(&["X=y"]),
            user: Some("app".into()),
            working_dir: Some("/tmp".into()),
            ..ExecConfig::default()
        };
        // Many, one after the other: each code is known as soon as the stream has ended.
        for _ in 0..20 {
            let ended = self.exec("host", config.clone()).await;
            assert_eq!(ended, ("y\n/tmp\n".into(), "1000\n".into(), 7));
        }
        let config = ExecConfig {
            cmd: words(&["nonesuch"]),
            attach_stdout: Some(true),
            ..ExecConfig::default()
        };
        let (out, _, code) = self.exec("host", config).await;
        assert!(code == 127 && out.contains("not found"), "{code} {out}");
        let config = ExecConfig {
            cmd: words(&["true"]),
            ..ExecConfig::default()
        };
        refused(404, self.docker.create_exec("nonesuch", config).await);
        self.remove("host").await;
    }

    async fn images(&self) {
        let mut tar = tar::Builder::new(Vec::new());
        let file = b"FROM busybox\nARG A\nCOPY part /part\nRUN echo $A >> /part\nCMD cat /part\n";
        for (name, data) in [("Dockerfile", &file[..]), ("part", b"of a context, ")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(data.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, data).unwrap();
        }
        let context = tar.into_inner().unwrap();
        let options = query::BuildImageOptionsBuilder::new()
            .t("made:1")
            .buildargs(&HashMap::from([("A", "built")]))
            .labels(&HashMap::from([("k", "v")]))
            .rm(true)
            .build();
        let said = self.docker.build_image(options, None, Some(body_full(context.into())));
        let said = all("a build", said).await.unwrap();
        assert!(said.iter().any(|l| l.aux.is_some()), "{said:?}");
        let doc = self.docker.inspect_image("made:1").await.unwrap();
        assert_eq!(doc.config.unwrap().labels.unwrap()["k"], "v");
        let history = self.docker.image_history("made:1");
        assert!(history.await.unwrap().len() >= 3);
        let tag = query::TagImageOptionsBuilder::new().repo("other").tag("2").build();
        self.docker.tag_image("made:1", Some(tag)).await.unwrap();
        let saved: Vec<bytes::Bytes> = all("a save", self.docker.export_image("other:2")).await.unwrap();
        self.docker
            .remove_image("other:2", None::<query::RemoveImageOptions>, None)
            .await
            .unwrap();
        let loaded = self.docker.import_image(
            query::ImportImageOptions::default(),
            body_full(saved.concat().into()),
            None,
        );
        let loaded = all("a load", loaded).await.unwrap();
        assert!(format!("{loaded:?}").contains("other:2"), "{loaded:?}");
        let listed = query::ListImagesOptionsBuilder::new()
            .filters(&filter("reference", "other"))
            .build();
        assert_eq!(self.docker.list_images(Some(listed)).await.unwrap().len(), 1);
        for name in ["made:1", "other:2"] {
            let gone = self
                .docker
                .remove_image(name, None::<query::RemoveImageOptions>, None)
                .await;
            assert!(!gone.unwrap().is_empty());
        }
        let pull = query::CreateImageOptionsBuilder::new()
            .from_image("127.0.0.1:1/nonesuch")
            .tag("1")
            .build();
        let pulled = all("a pull", self.docker.create_image(Some(pull), None, None)).await;
        assert!(pulled.is_err(), "{pulled:?}");
    }

    async fn networks_and_volumes(&self) {
        let create = NetworkCreateRequest {
            name: "lan".into(),
            internal: Some(true),
            ..NetworkCreateRequest::default()
        };
        self.docker.create_network(create.clone()).await.unwrap();
        refused(409, self.docker.create_network(create).await);
        let volume = VolumeCreateRequest {
            name: Some("data".into()),
            labels: Some(HashMap::from([("v".into(), "1".into())])),
            ..VolumeCreateRequest::default()
        };
        assert_eq!(self.docker.create_volume(volume).await.unwrap().name, "data");
        let more = ContainerCreateBody {
            host_config: Some(HostConfig {
                binds: words(&["data:/d"]),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        self.run("user", &["sleep", "1000"], more).await;
        let join = NetworkConnectRequest {
            container: "user".into(),
            ..NetworkConnectRequest::default()
        };
        self.docker.connect_network("lan", join).await.unwrap();
        let doc = self
            .docker
            .inspect_network("lan", None::<query::InspectNetworkOptions>)
            .await
            .unwrap();
        assert_eq!(doc.containers.unwrap().len(), 1);
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(5);
        header.set_mode(0o644);
        tar.append_data(&mut header, "up", &b"there"[..]).unwrap();
        let to = query::UploadToContainerOptionsBuilder::new().path("/d").build();
        let tar = body_full(tar.into_inner().unwrap().into());
        self.docker.upload_to_container("user", Some(to), tar).await.unwrap();
        let from = query::DownloadFromContainerOptionsBuilder::new().path("/d/up").build();
        let back = all("a file", self.docker.download_from_container("user", Some(from))).await;
        assert!(back.unwrap().concat().windows(5).any(|w| w == b"there"));
        refused(
            409,
            self.docker
                .remove_volume("data", None::<query::RemoveVolumeOptions>)
                .await,
        );
        refused(403, self.docker.remove_network("lan").await);
        self.remove("user").await;
        self.docker
            .remove_volume("data", None::<query::RemoveVolumeOptions>)
            .await
            .unwrap();
        self.docker.remove_network("lan").await.unwrap();
    }

    async fn events(&self, since: &str) {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let options = query::EventsOptionsBuilder::new()
            .since(since)
            .until(&(now.unwrap().as_secs() + 1).to_string())
            .filters(&filter("container", "talk"))
            .build();
        let seen = all("events", self.docker.events(Some(options))).await.unwrap();
        let actions: Vec<&str> = seen.iter().filter_map(|e| e.action.as_deref()).collect();
        for action in ["create", "start", "attach", "die", "destroy"] {
            assert!(actions.contains(&action), "{action}: {actions:?}");
        }
    }
}

async fn feed(input: &mut Pin<Box<dyn AsyncWrite + Send>>, bytes: &[u8]) {
    input.write_all(bytes).await.unwrap();
    input.shutdown().await.unwrap();
}

async fn tried(d: &Daemon) {
    let docker = Docker::connect_with_unix(&socket(d), 120, bollard::API_DEFAULT_VERSION).unwrap();
    let docker = docker.negotiate_version().await.unwrap();
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let since = since.unwrap().as_secs().to_string();
    let t = Tried { docker };
    t.system().await;
    t.containers().await;
    t.streams().await;
    t.execs().await;
    t.images().await;
    t.networks_and_volumes().await;
    t.events(&since).await;
}

#[test]
fn bollard_does_its_work() {
    let d = daemon();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(tried(&d));
    assert_eq!(d.biga(&["ps", "-aq"]).ok(), "");
    d.until_clean();
}

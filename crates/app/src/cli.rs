//! The command line.

mod quick;

use biga_client::{Client, Endpoint};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cmd::{
    apply, attach, build, checkpoint, compare, cp, delete, docker_context, doctor, edit, events, exec, files, get,
    image, inspect, kill, kubeconfig, login, logs, many, network, node, power, ps, rename, rm, run, setup, stats, top,
    update, version, volume, wait,
};
use crate::context::Context;
use crate::exit::Code;
use crate::serve::ServeOptions;

/// Runs virtual machines and containers on one host, as one thing.
#[derive(Debug, Parser)]
#[command(name = "biga", version, propagate_version = false, disable_help_subcommand = true)]
#[command(
    after_help = "`biga VERB --help` says more. Exit codes: 0 done, 1 failed, 2 usage, 3 not found, 4 conflict, \
                        5 invalid, 6 no daemon, 7 timeout, 8 denied; run, exec, attach: that of the process, or 125, 126, 127."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
struct Global {
    /// Where the daemon is
    #[arg(long, global = true, env = "BIGA_HOST", hide_env_values = true, value_name = "ADDRESS", default_value = "unix:///run/biga/api.sock", help_heading = "Global options", value_parser = endpoint)]
    host: Endpoint,
    /// Namespace of instances, volumes and events
    #[arg(
        short = 'n',
        long,
        global = true,
        env = "BIGA_NAMESPACE",
        hide_env_values = true,
        value_name = "NAMESPACE",
        default_value = "default",
        help_heading = "Global options"
    )]
    namespace: String,
}

fn endpoint(s: &str) -> Result<Endpoint, String> {
    s.parse().map_err(|e: biga_client::Error| e.message)
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an instance and run it
    Run(Box<run::RunArgs>),
    /// Make an instance without running it
    Create(Box<run::CreateArgs>),
    /// Start instances
    Start(power::StartArgs),
    /// Stop instances
    Stop(power::StopArgs),
    /// Stop instances and start them again
    Restart(power::StopArgs),
    /// Send a signal to instances
    Kill(kill::KillArgs),
    /// Freeze instances
    Pause(many::Names),
    /// Go on with frozen instances
    #[command(visible_alias = "unpause")]
    Resume(many::Names),
    /// Remove instances
    Rm(rm::RmArgs),
    /// List instances
    #[command(visible_alias = "ls")]
    Ps(ps::PsArgs),
    /// Show all about instances
    Inspect(inspect::InspectArgs),
    /// Show what an instance wrote
    Logs(logs::LogsArgs),
    /// Run one more process in an instance
    Exec(Box<exec::ExecArgs>),
    /// Copy files into and out of an instance
    Cp(cp::CpArgs),
    /// Show what an instance changed of its image
    Diff(files::DiffArgs),
    /// Build an image of a Dockerfile
    Build(Box<build::BuildArgs>),
    /// Make an image of an instance
    Commit(files::CommitArgs),
    /// Write the file system of an instance as a tar
    Export(files::ExportArgs),
    /// Save running containers, to go on from there later
    #[command(subcommand)]
    Checkpoint(checkpoint::CheckpointCommand),
    /// Connect to the main process of an instance
    Attach(attach::AttachArgs),
    /// Connect to the console of a machine or a microvm
    Console(attach::ConsoleArgs),
    /// Show what instances use
    Stats(stats::StatsArgs),
    /// Show the processes of an instance
    Top(top::TopArgs),
    /// Wait until instances end, and print their exit codes
    Wait(many::Names),
    /// Change instances
    Update(update::UpdateArgs),
    /// Give an instance another name
    Rename(rename::RenameArgs),
    /// Show what happens
    Events(events::EventsArgs),
    /// Images
    #[command(subcommand)]
    Image(image::ImageCommand),
    /// Keep a name and password for a registry
    Login(login::LoginArgs),
    /// Forget the name and password for a registry
    Logout(login::LogoutArgs),
    /// Volumes
    #[command(subcommand)]
    Volume(volume::VolumeCommand),
    /// Networks
    #[command(subcommand)]
    Network(network::NetworkCommand),
    /// Nodes
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Show objects of any kind
    Get(get::GetArgs),
    /// Make objects as files say
    Apply(apply::ApplyArgs),
    /// Change an object in an editor
    Edit(edit::EditArgs),
    /// Delete objects of any kind
    Delete(delete::DeleteArgs),
    /// Run an image in every isolation and show what each costs
    Compare(compare::CompareArgs),
    /// Show what this host offers and lacks
    Doctor(doctor::DoctorArgs),
    /// Prepare this host for microvms
    Setup(setup::SetupArgs),
    /// Print a config for kubectl
    Kubeconfig(kubeconfig::KubeconfigArgs),
    /// Print what points Docker's command line at this daemon
    DockerContext(docker_context::DockerContextArgs),
    /// Print a script that completes commands and options
    Completion(CompletionArgs),
    /// Run OCI bundles without the daemon, as containerd and Podman run them
    ///
    /// The command line is that of an OCI runtime: `biga oci --help` lists its verbs.
    #[command(disable_help_flag = true)]
    Oci(OciArgs),
    /// Run the daemon
    Serve(ServeOptions),
    /// Print versions
    Version(version::VersionArgs),
}

#[derive(Debug, Args)]
struct OciArgs {
    /// Verb and options of the runtime
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENT")]
    arguments: Vec<std::ffi::OsString>,
}

#[derive(Debug, Args)]
struct CompletionArgs {
    /// Your shell
    #[arg(value_enum, value_name = "SHELL")]
    shell: Shell,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Reads the command line of this process; ends it where that is a mistake or asks for help.
pub fn parse() -> Cli {
    let words: Vec<std::ffi::OsString> = std::env::args_os().collect();
    quick::parse(&words).unwrap_or_else(|| Cli::parse_from(words))
}

/// Carries out a command line.
pub fn run(cli: Cli) -> anyhow::Result<Code> {
    match cli.command {
        Command::Serve(o) => crate::serve::run(o).map(|()| Code::OK),
        Command::Doctor(a) => doctor::doctor(&a),
        Command::Setup(a) => setup::setup(&a),
        Command::Kubeconfig(a) => kubeconfig::kubeconfig(&a, &cli.global.namespace),
        Command::DockerContext(a) => docker_context::docker_context(&a, &cli.global.host),
        Command::Completion(a) => completion(a.shell),
        Command::Oci(a) => Err(crate::oci::hand_over(&a.arguments)),
        command => {
            let cx = Context {
                client: Client::new(cli.global.host),
                namespace: cli.global.namespace,
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let result = runtime.block_on(call(&cx, command));
            // A thread may still wait for standard input: nobody waits for it.
            runtime.shutdown_background();
            result
        }
    }
}

async fn call(cx: &Context, command: Command) -> anyhow::Result<Code> {
    match command {
        Command::Run(a) => run::run(cx, *a).await,
        Command::Create(a) => run::create(cx, *a).await,
        Command::Start(a) => power::start(cx, a).await,
        Command::Stop(a) => power::stop(cx, a).await,
        Command::Restart(a) => power::restart(cx, a).await,
        Command::Kill(a) => kill::kill(cx, a).await,
        Command::Pause(a) => power::pause(cx, a).await,
        Command::Resume(a) => power::resume(cx, a).await,
        Command::Rm(a) => rm::rm(cx, a).await,
        Command::Ps(a) => ps::ps(cx, a).await,
        Command::Inspect(a) => inspect::inspect(a, |n| async move { cx.instance(&n).await }).await,
        Command::Logs(a) => logs::logs(cx, a).await,
        Command::Exec(a) => exec::exec(cx, *a).await,
        Command::Cp(a) => cp::cp(cx, a).await,
        Command::Diff(a) => files::diff(cx, a).await,
        Command::Build(a) => build::build(cx, *a).await,
        Command::Commit(a) => files::commit(cx, a).await,
        Command::Export(a) => files::export(cx, a).await,
        Command::Checkpoint(c) => checkpoint::run(cx, c).await,
        Command::Attach(a) => attach::attach(cx, a).await,
        Command::Console(a) => attach::console(cx, a).await,
        Command::Stats(a) => stats::stats(cx, a).await,
        Command::Top(a) => top::top(cx, a).await,
        Command::Wait(a) => wait::wait(cx, a).await,
        Command::Update(a) => update::update(cx, a).await,
        Command::Rename(a) => rename::rename(cx, a).await,
        Command::Events(a) => events::events(cx, a).await,
        Command::Image(c) => image::run(cx, c).await,
        Command::Login(a) => login::login(cx, a).await,
        Command::Logout(a) => login::logout(a).await,
        Command::Volume(c) => volume::run(cx, c).await,
        Command::Network(c) => network::run(cx, c).await,
        Command::Node(c) => node::run(cx, c).await,
        Command::Get(a) => get::get(cx, a).await,
        Command::Apply(a) => apply::apply(cx, a).await,
        Command::Edit(a) => edit::edit(cx, a).await,
        Command::Delete(a) => delete::delete(cx, a).await,
        Command::Compare(a) => compare::compare(cx, a).await,
        Command::Version(a) => version::version(cx, a).await,
        Command::Doctor(_)
        | Command::Setup(_)
        | Command::Kubeconfig(_)
        | Command::DockerContext(_)
        | Command::Completion(_)
        | Command::Oci(_)
        | Command::Serve(_) => Ok(Code::USAGE),
    }
}

/// A script that asks this program for the completions.
fn completion(shell: Shell) -> anyhow::Result<Code> {
    let name = match shell {
        Shell::Bash => "bash",
        Shell::Zsh => "zsh",
        Shell::Fish => "fish",
    };
    let shells = clap_complete::env::Shells::builtins();
    let Some(shell) = shells.completer(name) else {
        anyhow::bail!("there is no completion for {name}");
    };
    let mut script = Vec::new();
    shell.write_registration("BIGA_COMPLETE", "biga", "biga", "biga", &mut script)?;
    crate::output::emit(&String::from_utf8_lossy(&script))?;
    Ok(Code::OK)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_of_every_verb() {
        // The one place where a change of the command line is seen before users see it.
        let mut root = Cli::command().term_width(100);
        root.build();
        let mut names = Vec::new();
        collect(&root, &mut Vec::new(), &mut names);
        assert!(names.len() > 50, "{names:?}");
        for path in names {
            let mut at = &mut root;
            for step in &path {
                at = at.find_subcommand_mut(step).unwrap();
            }
            let text = at.clone().term_width(100).render_long_help().to_string();
            let name = std::iter::once("help")
                .chain(path.iter().map(String::as_str))
                .collect::<Vec<_>>()
                .join("_");
            insta::assert_snapshot!(name, text);
        }
    }

    fn collect(c: &clap::Command, path: &mut Vec<String>, out: &mut Vec<Vec<String>>) {
        out.push(path.clone());
        for s in c.get_subcommands() {
            path.push(s.get_name().into());
            collect(s, path, out);
            path.pop();
        }
    }
}

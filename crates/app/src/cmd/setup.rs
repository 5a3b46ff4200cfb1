//! `biga setup`: what microvms need beyond the program: a guest kernel.

use std::path::PathBuf;

use anyhow::Context as _;

use crate::exit::Code;

/// Arguments of `setup`.
#[derive(Debug, Clone, clap::Args)]
pub struct SetupArgs {
    /// Take the guest kernel from a Debian package, as linux-image-6.1.0-37-cloud-amd64.deb
    #[arg(long, value_name = "FILE", conflicts_with = "from_host")]
    pub kernel_deb: Option<PathBuf>,
    /// Take the host's own kernel and modules
    #[arg(long)]
    pub from_host: bool,
    /// Where the daemon keeps its state
    #[arg(long, value_name = "DIR", default_value = "/var/lib/biga")]
    pub state: PathBuf,
}

/// Prepares the guest kernel. With no option, Debian's cloud kernel is fetched with apt.
pub fn setup(args: &SetupArgs) -> anyhow::Result<Code> {
    use biga_vm::setup::{Source, prepare_kernel, replace_kernel};
    let dir = args.state.join("kernel");
    let guest = biga_payload::GUEST;
    let bar = indicatif::ProgressBar::new_spinner();
    bar.enable_steady_tick(std::time::Duration::from_millis(100));
    bar.set_message("preparing the guest kernel");
    // A source that was named replaces what is there; without one, what is there is kept.
    let made = match (&args.kernel_deb, args.from_host) {
        (Some(deb), _) => replace_kernel(&dir, &Source::Deb(deb.clone()), guest),
        (None, true) => replace_kernel(&dir, &host_kernel(), guest),
        (None, false) => prepare_kernel(&dir, &Source::Download, guest),
    };
    bar.finish_and_clear();
    let kernel = made.context("cannot prepare the guest kernel")?;
    crate::output::line(format!("guest kernel {} is ready in {}", kernel.release, dir.display()))?;
    Ok(Code::OK)
}

/// The running kernel's own files.
fn host_kernel() -> biga_vm::setup::Source {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    biga_vm::setup::Source::Host {
        vmlinuz: format!("/boot/vmlinuz-{release}").into(),
        modules: format!("/lib/modules/{release}").into(),
    }
}

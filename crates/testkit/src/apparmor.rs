//! AppArmor profiles for a test.

use std::io::Write;
use std::process::{Command, Stdio};

/// A loaded profile; gone from the kernel when it is dropped.
#[derive(Debug)]
pub struct Profile {
    /// What it is called: no other test's is.
    pub name: String,
}

impl Profile {
    /// Allows everything but writing below `/forbidden`. None where the host has no AppArmor, or nothing that loads profiles, which
    /// is said.
    ///
    /// # Panics
    /// Where the profile cannot be loaded.
    pub fn load(name: &str) -> Option<Profile> {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled");
        if !enabled.is_ok_and(|t| t.starts_with('Y')) || Command::new("apparmor_parser").arg("-V").output().is_err() {
            eprintln!("this host has no AppArmor, or no apparmor_parser");
            return None;
        }
        let profile = Profile {
            name: format!("bigatest-{name}-{}", std::process::id()),
        };
        assert!(profile.parser("--replace"), "apparmor_parser --replace failed");
        Some(profile)
    }

    /// How `/proc/self/attr/current` says it.
    pub fn confined(&self) -> String {
        format!("{} (enforce)\n", self.name)
    }

    fn parser(&self, what: &str) -> bool {
        let rules = "file, capability, network, mount, umount, pivot_root, ptrace, signal, unix, deny /forbidden/** w,";
        let text = format!(
            "profile {} flags=(attach_disconnected,mediate_deleted) {{ {rules} }}\n",
            self.name
        );
        let mut parser = Command::new("apparmor_parser")
            .args([what, "--skip-cache", "--quiet"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("start apparmor_parser");
        let mut stdin = parser.stdin.take().expect("its input");
        stdin.write_all(text.as_bytes()).expect("write the profile");
        drop(stdin);
        parser.wait().expect("wait for apparmor_parser").success()
    }
}

impl Drop for Profile {
    fn drop(&mut self) {
        // A test that ends otherwise is not to fail for it.
        let _ = self.parser("--remove");
    }
}

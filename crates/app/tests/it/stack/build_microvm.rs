//! Steps of a build under a kernel of their own.

use std::fs;

use biga_testkit::{Ran, eventually};

use super::build::{build, context};
use super::buildkit::{buildx, has_buildx};
use super::docker::{docker, has_docker};
use super::microvms::with_kernel;

const STEPS: &str = "FROM busybox
RUN uname -r > /kernel; echo text > /made; chown 5:6 /made; chmod 640 /made; mkdir -p /opt/d; ln -s /made /opt/l; \
rm /var/www/index.html; touch /opt/d/x
COPY a /a
RUN --mount=type=cache,target=/cache --mount=target=/context,ro echo x >> /cache/n; cat /context/a /made > /both; rm -r /opt/d; \
stat -c '%u:%g %a' /made > /owner; mkdir /opt/d
RUN <<EOF
#!/bin/awk -f
BEGIN { print \"awk\" > \"/script\" }
EOF
";

#[test]
fn steps_of_a_build_run_in_microvms() {
    let d = with_kernel();
    let dir = context(&d, "steps", &[("Dockerfile", STEPS), ("a", "a\n")]);
    let at = dir.display().to_string();
    let built = d.biga(&["build", "-t", "vm:1", "--isolation", "microvm", &at]);
    assert_eq!(built.code, 0, "{built:?}");
    let look = "cat /kernel /both /owner /script; readlink /opt/l; ls -A /opt /opt/d /var/www; ls -d /cache /context 2>/dev/null; true";
    let look = ["run", "--rm", "vm:1", "sh", "-c", look];
    let host = d.host(&["uname", "-r"]).ok();
    let seen = d.biga(&look).ok();
    let (kernel, rest) = seen.split_once('\n').unwrap();
    assert_ne!(kernel, host, "it has a kernel of its own");
    assert_eq!(
        rest,
        "a\ntext\n5:6 640\nawk\n/made\n/opt:\nd\nl\n\n/opt/d:\n\n/var/www:"
    );
    // What a step makes is used again wherever the next one would run.
    let again = d.biga(&["build", "-t", "vm:2", &at]);
    // Done once more, a step would have another time and so the image another id.
    assert_eq!(again.ok(), built.out.trim());

    // A step that fails fails the build with its code, and leaves nothing.
    let fails = "FROM busybox\nRUN echo good > /good\nRUN uname -r; echo why >&2; exit 3\n";
    fs::write(dir.join("Dockerfile"), fails).unwrap();
    if has_docker() {
        let failed = build(&d, &dir, &["--isolation", "hyperv", "--force-rm"]);
        assert_eq!(failed.code, 3, "{failed:?}");
        assert!(failed.err.contains("returned a non-zero code: 3"), "{failed:?}");
        assert!(failed.out.contains(kernel) && failed.out.contains("why"), "{failed:?}");
        let wrong = build(&d, &dir, &["--isolation", "jail"]);
        assert!(wrong.err.contains("invalid isolation: jail"), "{wrong:?}");
    }
    // Buildx has no such option.
    if has_buildx() {
        let args = [
            "build",
            "--progress=plain",
            "--build-arg",
            "BIGA_ISOLATION=microvm",
            &at,
        ];
        let failed = Ran::from(buildx(&d, &args).output().unwrap());
        assert!(
            failed.code == 1 && failed.err.contains("exit code: 3"),
            "{}",
            failed.err
        );
        assert!(
            failed.err.contains(kernel) && failed.err.contains("CACHED"),
            "{}",
            failed.err
        );
    }
    // Who leaves ends the build, and the machine with it.
    fs::write(dir.join("Dockerfile"), "FROM busybox\nRUN echo begun; sleep 1000\n").unwrap();
    let mut client = d.command(&["build", "--isolation", "microvm", &at]).spawn().unwrap();
    eventually("the step to run", || {
        (!d.biga(&["ps", "-q"]).ok().is_empty()).then_some(())
    });
    client.kill().unwrap();
    client.wait().unwrap();
    eventually("the step to be gone", || {
        d.biga(&["ps", "-aq"]).ok().is_empty().then_some(())
    });
    if has_docker() {
        assert_eq!(docker(&d, &["ps", "-aq"]).ok(), "");
    }
    d.until_clean();
}

//! Logins: kept in Docker's file and with its helpers, and used from there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use biga_image::docker_config::{erase, lookup, store};
use biga_image::{Auth, Error, PullOptions, PushOptions};

use crate::support::*;

/// A credential helper on the search path, which keeps what it is told in a directory. It goes with this.
struct Helper {
    program: PathBuf,
    name: String,
    kept: tempfile::TempDir,
}

impl Helper {
    fn new(word: &str) -> Helper {
        let kept = tempfile::tempdir().unwrap();
        let name = format!("bigatest{word}{}", std::process::id());
        let program = Path::new("/usr/local/bin").join(format!("docker-credential-{name}"));
        let script = format!(
            r#"#!/bin/sh
cd {dir} || exit 1
input=$(cat)
case $1 in
store)
    server=$(printf %s "$input" | sed 's/.*"ServerURL":"\([^"]*\)".*/\1/' | tr / _)
    printf %s "$input" > "$server" ;;
get)
    server=$(printf %s "$input" | tr / _)
    test -e broken && echo "the key ring is locked" && exit 1
    test -e "$server" || {{ echo "credentials not found in native keychain"; exit 1; }}
    cat "$server" ;;
erase) rm "$(printf %s "$input" | tr / _)" ;;
*) exit 1 ;;
esac
"#,
            dir = str(kept.path())
        );
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        Helper { program, name, kept }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.program);
    }
}

fn basic(username: &str, password: &str) -> Auth {
    Auth::Basic {
        username: username.into(),
        password: password.into(),
    }
}

fn is(auth: &Auth, name: &str, secret: &str) -> bool {
    matches!(auth, Auth::Basic { username, password } if username == name && password == secret)
}

#[tokio::test]
async fn the_file_keeps_and_forgets() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new/config.json");
    assert!(matches!(lookup(&file, "r.example").await.unwrap(), Auth::Anonymous));
    assert!(!erase(&file, "r.example").await.unwrap());
    assert!(!file.exists());
    // The way to have no logins at all.
    assert!(matches!(
        lookup(Path::new("/dev/null"), "r.example").await.unwrap(),
        Auth::Anonymous
    ));
    assert_eq!(store(&file, "r.example", &basic("ann", "p:w")).await.unwrap(), None);
    let mode = |p: &Path| fs::metadata(p).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert!(is(&lookup(&file, "r.example").await.unwrap(), "ann", "p:w"));
    store(&file, "docker.io", &Auth::Identity("token".into()))
        .await
        .unwrap();
    assert!(matches!(lookup(&file, "docker.io").await.unwrap(), Auth::Identity(t) if t == "token"));
    // What else is in it stays, and an entry by address is the same registry.
    fs::write(
        &file,
        r#"{"auths":{"https://r.example/v1/":{"auth":"b2xkOm9sZA=="}},"HttpHeaders":{"X":"y"},"psFormat":"z"}"#,
    )
    .unwrap();
    store(&file, "r.example", &basic("ann", "new")).await.unwrap();
    let text = fs::read_to_string(&file).unwrap();
    assert!(
        text.contains("HttpHeaders") && text.contains("psFormat") && !text.contains("https://r.example"),
        "{text}"
    );
    assert!(is(&lookup(&file, "r.example").await.unwrap(), "ann", "new"));
    assert!(erase(&file, "r.example").await.unwrap());
    assert!(!erase(&file, "r.example").await.unwrap());
    assert!(matches!(lookup(&file, "r.example").await.unwrap(), Auth::Anonymous));
    // Docker's own command line reads what we wrote.
    store(&file, "r.example", &basic("ann", "new")).await.unwrap();
    fs::write(&file, "{ not json").unwrap();
    for result in [
        store(&file, "r.example", &basic("a", "b")).await.map(drop),
        erase(&file, "r.example").await.map(drop),
        lookup(&file, "r.example").await.map(drop),
    ] {
        assert!(matches!(result, Err(Error::Credentials { .. })));
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "{ not json");
}

#[tokio::test]
async fn helpers_keep_and_forget() {
    let (own, all) = (Helper::new("own"), Helper::new("all"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    fs::write(
        &file,
        format!(
            r#"{{"credHelpers":{{"r.example:5000":"{}"}},"credsStore":"{}"}}"#,
            own.name, all.name
        ),
    )
    .unwrap();
    for (registry, helper) in [("r.example:5000", &own), ("other.example", &all), ("docker.io", &all)] {
        assert!(matches!(lookup(&file, registry).await.unwrap(), Auth::Anonymous));
        assert_eq!(
            store(&file, registry, &basic("ann", "s3cret")).await.unwrap().as_ref(),
            Some(&helper.name)
        );
        assert!(
            is(&lookup(&file, registry).await.unwrap(), "ann", "s3cret"),
            "{registry}"
        );
        assert_eq!(fs::read_dir(helper.kept.path()).unwrap().count(), 1, "{registry}");
        assert!(!fs::read_to_string(&file).unwrap().contains("s3cret"));
        store(&file, registry, &Auth::Identity("tok".into())).await.unwrap();
        assert!(matches!(lookup(&file, registry).await.unwrap(), Auth::Identity(t) if t == "tok"));
        assert!(erase(&file, registry).await.unwrap());
        assert!(!erase(&file, registry).await.unwrap());
        assert_eq!(fs::read_dir(helper.kept.path()).unwrap().count(), 0, "{registry}");
    }
    // A helper that fails is an error and not an anonymous pull; one that is missing too.
    fs::write(own.kept.path().join("broken"), "").unwrap();
    let e = lookup(&file, "r.example:5000").await.unwrap_err().to_string();
    assert!(e.contains("the key ring is locked"), "{e}");
    fs::write(&file, r#"{"credsStore":"biga-test-no-such-helper"}"#).unwrap();
    let e = lookup(&file, "r.example").await.unwrap_err().to_string();
    assert!(e.contains("docker-credential-biga-test-no-such-helper"), "{e}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_is_asked_with_what_is_kept() {
    let registry = Registry::with_password();
    let helper = Helper::new("ask");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("config.json");
    let s = Store::with(|o| o.credentials = Some(file.clone()));
    let image = s.import(TarBuilder::new().file("x", b"1").end(), "app").await;
    let name = registry.reference("app:1");
    let push = async || {
        s.store
            .push(&image.image_id, &name, &PushOptions::default(), |_| {})
            .await
    };
    assert!(matches!(push().await, Err(Error::Denied { .. })));
    assert!(matches!(
        s.store.check_login(&registry.host, &basic("me", "wrong")).await,
        Err(Error::Denied { .. })
    ));
    s.store
        .check_login(&registry.host, &basic("me", "secret"))
        .await
        .unwrap();
    store(&file, &registry.host, &basic("me", "secret")).await.unwrap();
    push().await.unwrap();
    // And with a helper, for a pull.
    fs::write(
        &file,
        format!(r#"{{"credHelpers":{{"{}":"{}"}}}}"#, registry.host, helper.name),
    )
    .unwrap();
    let pull = async || {
        let empty = Store::with(|o| o.credentials = Some(file.clone()));
        empty.store.pull(&name, &PullOptions::default(), |_| {}).await
    };
    assert!(matches!(pull().await, Err(Error::Denied { .. })));
    store(&file, &registry.host, &basic("me", "secret")).await.unwrap();
    pull().await.unwrap();
    // Who brings credentials is asked by these, not by the host's.
    let wrong = PullOptions {
        auth: basic("me", "wrong"),
        ..PullOptions::default()
    };
    assert!(matches!(
        s.store.pull(&name, &wrong, |_| {}).await,
        Err(Error::Denied { .. })
    ));
}

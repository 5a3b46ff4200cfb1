//! `biga edit`: change an object in an editor.

use std::process::Command;

use biga_client::ErrorKind;
use serde_json::Value;

use crate::cmd::get::{api_of, split_kind};
use crate::context::Context;
use crate::exit::{Code, fail};
use crate::output::{line, note, object_name, yaml};

/// Arguments of `edit`.
#[derive(Debug, clap::Args)]
pub struct EditArgs {
    /// Kind, as instance; also KIND/NAME
    #[arg(value_name = "KIND")]
    kind: String,
    /// Name
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

/// Opens the object in `$VISUAL`, `$EDITOR` or vi, and stores what was written. A refusal is shown in the file, as often as it takes.
pub async fn edit(cx: &Context, args: EditArgs) -> anyhow::Result<Code> {
    let (kind, names) = split_kind(&args.kind, &args.name.into_iter().collect::<Vec<_>>());
    let [name] = &names[..] else {
        return Err(fail(Code::USAGE, "name one object, as in `biga edit instance web`"));
    };
    let api = api_of(cx, cx.client.find_resource(&kind).await?, false);
    let object = api.get(name).await?;
    let original = editable(&object)?;
    let mut text = original.clone();
    let mut trouble: Option<String> = None;
    loop {
        let shown = match &trouble {
            None => text.clone(),
            Some(t) => format!("{}\n{text}", comment(t)),
        };
        let edited = without_comments(&open_editor(&shown)?);
        if edited == text && trouble.is_some() || edited == original {
            return match trouble {
                None => {
                    note("nothing was changed");
                    Ok(Code::OK)
                }
                Some(t) => Err(fail(Code::INVALID, format!("given up: {t}"))),
            };
        }
        text = edited;
        let parsed: Result<Value, _> = serde_saphyr::from_str(&text);
        let wanted = match parsed {
            Ok(v) => v,
            Err(e) => {
                trouble = Some(format!("this is no YAML: {e}"));
                continue;
            }
        };
        match api.update(name, &wanted).await {
            Ok(o) => {
                line(format!("{} edited", object_name(&o)))?;
                return Ok(Code::OK);
            }
            Err(e) if matches!(e.kind, ErrorKind::Invalid | ErrorKind::BadRequest) => trouble = Some(e.to_string()),
            Err(e) if e.kind == ErrorKind::Conflict => {
                let kept = keep(&text)?;
                return Err(fail(
                    Code::CONFLICT,
                    format!("{e}\nyour text is kept in {kept}: edit again, or `biga apply -f {kept}`"),
                ));
            }
            Err(e) => return Err(e.into()),
        }
    }
}

/// The object without what nobody edits.
fn editable(o: &Value) -> anyhow::Result<String> {
    let mut o = o.clone();
    if let Value::Object(m) = &mut o {
        m.remove("status");
    }
    if let Some(Value::Object(m)) = o.get_mut("metadata") {
        m.remove("managedFields");
    }
    yaml(&o)
}

fn comment(t: &str) -> String {
    t.lines().map(|l| format!("# {l}\n")).collect()
}

fn without_comments(t: &str) -> String {
    let begin = t.lines().take_while(|l| l.starts_with('#') || l.is_empty()).count();
    t.lines().skip(begin).map(|l| format!("{l}\n")).collect()
}

fn open_editor(text: &str) -> anyhow::Result<String> {
    let editor = ["VISUAL", "EDITOR"]
        .iter()
        .find_map(|v| std::env::var(v).ok().filter(|e| !e.is_empty()))
        .unwrap_or_else(|| "vi".into());
    let words = shell_words::split(&editor).map_err(|e| fail(Code::USAGE, format!("$EDITOR {editor:?}: {e}")))?;
    let Some((program, args)) = words.split_first() else {
        return Err(fail(Code::USAGE, "$EDITOR is empty"));
    };
    let path = scratch("edit");
    write_private(&path, text)?;
    let status = Command::new(program).args(args).arg(&path).status();
    let edited = std::fs::read_to_string(&path);
    let _ = std::fs::remove_file(&path);
    match status {
        Ok(s) if s.success() => Ok(edited?),
        Ok(s) => Err(fail(
            Code::FAILED,
            format!("{editor} ended with {s}: nothing was changed"),
        )),
        Err(e) => Err(fail(
            Code::FAILED,
            format!("cannot run the editor {editor}: {e}; set EDITOR to one you have"),
        )),
    }
}

fn keep(text: &str) -> anyhow::Result<String> {
    let path = scratch("kept");
    write_private(&path, text)?;
    Ok(path.display().to_string())
}

/// A file nobody else can have put there.
fn scratch(what: &str) -> std::path::PathBuf {
    let tail = crate::names::random();
    std::env::temp_dir().join(format!("biga-{what}-{}-{tail}.yaml", std::process::id()))
}

fn write_private(path: &std::path::Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut f = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|e| fail(Code::FAILED, format!("cannot write {}: {e}", path.display())))?;
    f.write_all(text.as_bytes())?;
    Ok(())
}

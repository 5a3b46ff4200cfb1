//! Users and groups as the image names them.

use crate::Error;

/// Who a process runs as.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Home directory; `/` where the image names none.
    pub home: String,
}

struct Passwd<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd(text: &str) -> impl Iterator<Item = Passwd<'_>> {
    text.lines().filter_map(|line| {
        let f: Vec<&str> = line.split(':').collect();
        Some(Passwd {
            name: f.first()?,
            uid: f.get(2)?.parse().ok()?,
            gid: f.get(3)?.parse().ok()?,
            home: f.get(5).copied().unwrap_or("/"),
        })
    })
}

/// Name, id and members of each group.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    text.lines().filter_map(|line| {
        let f: Vec<&str> = line.split(':').collect();
        Some((*f.first()?, f.get(2)?.parse().ok()?, f.get(3).copied().unwrap_or("")))
    })
}

/// Resolves `user[:group]` against the image's files. A name comes before a number of the same look. Without a group, the
/// user's own from `passwd` and all that `group` lists him in; with one, only that.
pub fn resolve(user: &str, additional: &[String], passwd_text: &str, group_text: &str) -> Result<Identity, Error> {
    let (name, group) = match user.split_once(':') {
        Some((u, g)) => (u, Some(g)),
        None => (user, None),
    };
    let name = if name.is_empty() { "0" } else { name };
    let number: Option<u32> = name.parse().ok();
    let entry = passwd(passwd_text)
        .find(|p| p.name == name)
        .or_else(|| passwd(passwd_text).find(|p| Some(p.uid) == number));
    let mut identity = match (&entry, number) {
        (Some(p), _) => Identity {
            uid: p.uid,
            gid: p.gid,
            groups: Vec::new(),
            home: p.home.to_owned(),
        },
        (None, Some(uid)) => Identity {
            uid,
            home: "/".into(),
            ..Identity::default()
        },
        (None, None) => return Err(Error::User(name.to_owned())),
    };
    let gid_of = |g: &str| -> Result<u32, Error> {
        let by_name = groups(group_text).find(|(n, ..)| *n == g).map(|(_, gid, _)| gid);
        by_name
            .or_else(|| g.parse().ok())
            .ok_or_else(|| Error::Group(g.to_owned()))
    };
    match (group.filter(|g| !g.is_empty()), &entry) {
        (Some(g), _) => identity.gid = gid_of(g)?,
        (None, Some(p)) => {
            let member = |members: &str| members.split(',').any(|m| m == p.name);
            identity
                .groups
                .extend(groups(group_text).filter(|(.., m)| member(m)).map(|(_, gid, _)| gid));
        }
        (None, None) => {}
    }
    for g in additional {
        identity.groups.push(gid_of(g)?);
    }
    // A process may leave its own group, which must not give it what that group is forbidden.
    identity.groups.push(identity.gid);
    identity.groups.sort_unstable();
    identity.groups.dedup();
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www:/bin/sh\n1000:x:7:7::/odd:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nweb:x:33:\nlogs:x:4:web,root\nlate:x:9:web\n";

    fn ids(user: &str) -> (u32, u32, Vec<u32>) {
        let i = resolve(user, &[], PASSWD, GROUP).unwrap();
        (i.uid, i.gid, i.groups)
    }

    #[test]
    fn by_name_and_number() {
        assert_eq!(ids(""), (0, 0, vec![0, 4]));
        assert_eq!(ids("web"), (33, 33, vec![4, 9, 33]));
        assert_eq!(ids("33"), (33, 33, vec![4, 9, 33]));
        assert_eq!(ids("web:root"), (33, 0, vec![0]));
        assert_eq!(ids("500:600"), (500, 600, vec![600]));
        assert_eq!(ids("1000"), (7, 7, vec![7]), "a name before a number");
        assert_eq!(
            resolve("web", &["late".into(), "77".into()], PASSWD, GROUP)
                .unwrap()
                .groups,
            [4, 9, 33, 77]
        );
        assert_eq!(resolve("web", &[], PASSWD, GROUP).unwrap().home, "/var/www");
    }

    #[test]
    fn unknown_names_are_errors() {
        assert!(matches!(resolve("nobody", &[], PASSWD, GROUP), Err(Error::User(_))));
        assert!(matches!(resolve("0:nogroup", &[], PASSWD, GROUP), Err(Error::Group(_))));
    }
}

//! What those who check tokens offline are told of the revocation log: enough to hold the same index, and no name that
//! is not theirs to know.

use ring::digest::{SHA256, digest};

use crate::domain::{
    encode_base64url,
    revocation::{LogAction, LogEntry, LogPosition, Target},
    time::Timestamp,
    uri::ResourceUri,
};

/// Who is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedScope {
    /// A resource: what can end tokens that are for it.
    Resource(ResourceUri),
    /// An admin: everything that can end a token.
    Admin,
}

/// An entry as it is told: without who did it and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its place.
    pub seq: LogPosition,
    /// What is done.
    pub verb: LogAction,
    /// The kind of name.
    pub kind: &'static str,
    /// The name: see [`key`].
    pub key: String,
    /// When.
    pub at: Timestamp,
    /// The moment after which it can end nothing that is unexpired.
    pub forget_after: Timestamp,
}

/// What is told of an entry, if anything is.
#[must_use]
pub fn project(LogEntry { seq, entry }: &LogEntry, audience: &FeedScope) -> Option<FeedEntry> {
    let is_theirs = match (&entry.target, audience) {
        (Target::Resource(uri), FeedScope::Resource(own)) => uri == own,
        _ => true,
    };
    let key = feed_key(&entry.target).filter(|_| is_theirs)?;
    Some(FeedEntry {
        seq: *seq,
        verb: entry.verb,
        kind: entry.target.kind(),
        key,
        at: entry.at,
        forget_after: entry.forget_after,
    })
}

/// The name of a target, for others. Tokens, tasks and grants have random names, told as they are. People, agents, resources and
/// issuers are told by the SHA-256 of kind, blank, name (base64url): whoever holds a token makes the same of its claims,
/// and nobody reads from it whose other tokens were ended. Our signing keys have no name. The registry and API tokens are of
/// no concern to others.
#[must_use]
pub fn feed_key(target: &Target) -> Option<String> {
    match target {
        Target::Token(id) => Some(id.to_string()),
        Target::Task(id) => Some(id.to_string()),
        Target::Grant(id) => Some(id.to_string()),
        Target::Requester(_) | Target::Agent(_) | Target::Resource(_) | Target::Issuer(_) => {
            let text = format!("{} {}", target.kind(), target.key());
            Some(encode_base64url(digest(&SHA256, text.as_bytes()).as_ref()))
        }
        // Whoever keeps our keys reads them again.
        Target::Keys => Some(String::new()),
        Target::Registry | Target::Credentials(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::revocation::NewEntry;

    #[test]
    fn subscriber_sees_only_its_scope() {
        let files: ResourceUri = "https://files.example.com/mcp".parse().unwrap();
        let resource = FeedScope::Resource(files.clone());
        let id = uuid::Uuid::from_bytes([7; 16]);
        // The digests were made with sha256sum and basenc.
        for (target, want, by_resource) in [
            (Target::Token(id.to_string().parse().unwrap()), Some("07070707-0707-0707-0707-070707070707"), true),
            (Target::Task(id.to_string().parse().unwrap()), Some("07070707-0707-0707-0707-070707070707"), true),
            (Target::Grant(id.to_string().parse().unwrap()), Some("07070707-0707-0707-0707-070707070707"), true),
            (
                Target::Requester("https://login.example.com alice".into()),
                Some("rpSZi3Xafuh7OQPrd_h6yFiCuIFuLLeQFw9F0WIlQac"),
                true,
            ),
            (Target::Agent("planner".parse().unwrap()), Some("sb28ocJ7O5tg8Zfb7ciVeKclzmyS_jr4Tnn6qTHovhY"), true),
            (
                Target::Issuer("https://login.example.com".parse().unwrap()),
                Some("kOxxndxOjtNJAgBXr_Wc_eGdNxoELlNi7gV9xTUJ3lE"),
                true,
            ),
            (Target::Resource(files), Some("Vxnklc8SOf-Lx_0Zr44vsVnWI-Yd9SdyBCO_IJkwvUk"), true),
            (
                Target::Resource("https://notes.example.com/mcp".parse().unwrap()),
                Some("H0kUScKN6NElx77jjuXqhjiTeghLpkLcdxfKpkv6P1s"),
                false,
            ),
            (Target::Registry, None, false),
            (Target::Credentials("files".parse().unwrap()), None, false),
            (Target::Keys, Some(""), true),
        ] {
            assert_eq!(feed_key(&target).as_deref(), want, "{target:?}");
            let now = Timestamp::from_unix(1000);
            let (reason, by) = ("x".to_owned(), "admin:ops".to_owned());
            let entry = NewEntry { verb: LogAction::Revoke, target, reason, by, at: now, forget_after: now };
            let entry = LogEntry { seq: LogPosition::new(5), entry };
            assert_eq!(project(&entry, &FeedScope::Admin).map(|told| told.key).as_deref(), want);
            assert_eq!(project(&entry, &resource).is_some(), by_resource, "{entry:?}");
        }
    }
}

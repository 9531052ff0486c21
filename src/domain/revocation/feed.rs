//! Revocation feed for verifiers that check tokens offline. It contains what they need for the same
//! index, and no identifier that they should not learn.

use ring::digest::{SHA256, digest};

use crate::domain::{
    encode_base64url,
    revocation::{LogAction, LogEntry, LogPosition, Target},
    time::Timestamp,
    uri::ResourceUri,
};

/// The audience of a feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FeedScope {
    /// A resource: receives what can revoke tokens for it.
    Resource(ResourceUri),
    /// An admin: receives everything that can revoke a token.
    Admin,
}

/// An entry as published: without its author and reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedEntry {
    /// The position.
    pub seq: LogPosition,
    /// The action.
    pub verb: LogAction,
    /// The kind of target.
    pub kind: &'static str,
    /// The key of the target: see [`feed_key`].
    pub key: String,
    /// The time of the action.
    pub at: Timestamp,
    /// The time after which every token that the entry can revoke has expired.
    pub forget_after: Timestamp,
}

/// Returns the published form of an entry, or `None` if it is not published in this scope.
#[must_use]
pub fn project(LogEntry { seq, entry }: &LogEntry, scope: &FeedScope) -> Option<FeedEntry> {
    let is_in_scope = match (&entry.target, scope) {
        (Target::Resource(uri) | Target::Tool(uri, _) | Target::BreakGlass(uri), FeedScope::Resource(own)) => {
            uri == own
        }
        // A refusal itself concerns exchanges alone; the end of the tokens is an entry of its own.
        (Target::Delegation(..), _) => entry.verb == LogAction::Revoke,
        _ => true,
    };
    let key = feed_key(&entry.target).filter(|_| is_in_scope)?;
    Some(FeedEntry {
        seq: *seq,
        verb: entry.verb,
        kind: entry.target.kind(),
        key,
        at: entry.at,
        forget_after: entry.forget_after,
    })
}

/// Returns the published key of a target, or `None` if the target is not published.
///
/// Tokens, tasks and grants have random ids, which are published as they are. All other targets of
/// tokens are published as the base64url SHA-256 of kind, space and name. The holder of a token can
/// compute the same value from its claims, while a subscriber can't read whose other tokens were
/// revoked. The signing keys have an empty key. Changes of the registry, API
/// tokens and user tokens do not concern subscribers.
#[must_use]
pub fn feed_key(target: &Target) -> Option<String> {
    match target {
        Target::Token(id) => Some(id.to_string()),
        Target::Task(id) => Some(id.to_string()),
        Target::Grant(id) => Some(id.to_string()),
        Target::Requester(_)
        | Target::Agent(_)
        | Target::Resource(_)
        | Target::Issuer(_)
        | Target::Tool(..)
        | Target::BreakGlass(_)
        | Target::Delegation(..) => {
            let text = format!("{} {}", target.kind(), target.key());
            Some(encode_base64url(digest(&SHA256, text.as_bytes()).as_ref()))
        }
        // Subscribers that cache the JWKS fetch it again.
        Target::Keys | Target::AllAgents => Some(String::new()),
        Target::Registry
        | Target::Credentials(_)
        | Target::Evidence(_)
        | Target::Configuration
        | Target::IssuerKey(_)
        | Target::IssuerKeySet(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::revocation::{NewEntry, evidence::EndedEvidence};

    #[test]
    fn subscriber_sees_only_its_scope() {
        let files: ResourceUri = "https://files.example.com/mcp".parse().unwrap();
        let resource = FeedScope::Resource(files.clone());
        let id = uuid::Uuid::from_bytes([7; 16]);
        // The digests were computed with sha256sum and basenc.
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
            (
                Target::Tool("https://files.example.com/mcp".parse().unwrap(), "read_file".parse().unwrap()),
                Some("SWEk_gX9oUqObHPbojP728lizUHQ2kcmh10i90SptTQ"),
                true,
            ),
            (
                Target::Tool("https://notes.example.com/mcp".parse().unwrap(), "read_file".parse().unwrap()),
                Some("LAcdlIJTMZX57q-h9XCWPR6mEQk0wv1zLk1D1FE-jV4"),
                false,
            ),
            (
                Target::BreakGlass("https://files.example.com/mcp".parse().unwrap()),
                Some("aXA6AAn-ng0ORLdffFSQBjxZR6QyzBfR-RDlPLforHo"),
                true,
            ),
            (
                Target::BreakGlass("https://notes.example.com/mcp".parse().unwrap()),
                Some("JpnzFnVmNUpxcP3vgrYqgktN_r_PHh2a1p87_2kINr0"),
                false,
            ),
            (Target::AllAgents, Some(""), true),
            (Target::Evidence(EndedEvidence::parse("requester https://login.example.com alice").unwrap()), None, false),
            (Target::Registry, None, false),
            (Target::Credentials("files".parse().unwrap()), None, false),
            (Target::IssuerKeySet("https://login.example.com".parse().unwrap()), None, false),
            (Target::Keys, Some(""), true),
        ] {
            assert_eq!(feed_key(&target).as_deref(), want, "{target:?}");
            let now = Timestamp::from_unix(1000);
            let (reason, by) = ("x".to_owned(), "admin:ops".to_owned());
            let entry = NewEntry { verb: LogAction::Revoke, target, reason, by, at: now, forget_after: now };
            let entry = LogEntry { seq: LogPosition::new(5), entry };
            assert_eq!(project(&entry, &FeedScope::Admin).map(|published| published.key).as_deref(), want);
            assert_eq!(project(&entry, &resource).is_some(), by_resource, "{entry:?}");
        }
    }
}

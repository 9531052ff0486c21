//! Generated worlds and walks through them: who knows whom, who may what, and what everybody tries, right and wrong.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::domain::{
    registry::KnownTools,
    tool::{Definition, KnownTool},
};

/// The scopes that tools have. Resources share them, on purpose.
const SCOPES: [&str; 4] = ["s:read", "s:write", "s:send", "s:drop"];

/// Raw material of a world.
#[derive(Clone, Debug)]
pub(super) struct Seed {
    /// For each resource the scopes of its tools, and its cap.
    resources: Vec<(Vec<u8>, Option<u16>)>,
    /// For each agent: which tools it may have, whom it may delegate to (bits), and its cap.
    agents: Vec<(u16, u16, Option<u16>)>,
    /// The scopes of the user's token; no ceiling when absent.
    scopes: Option<u8>,
    /// What the user's groups give: none, or tools by bits.
    entitled: Option<u16>,
    /// How deep a chain may be.
    max_chain: usize,
    /// What is tried, one after the other.
    pub(super) steps: Vec<Step>,
}

/// One thing that is tried.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) op: u8,
    /// Which token, counted from the newest; 0 most of the time.
    pub(super) token: u8,
    /// Who, when `stray`; and whom to hand over to.
    pub(super) who: u8,
    /// Whether somebody tries who may not.
    pub(super) stray: bool,
    /// Which tools are asked for, of those that the parent has; all of the world's when `greedy`.
    pub(super) mask: u16,
    pub(super) greedy: bool,
    pub(super) by_scope: bool,
    pub(super) expires_in: Option<u16>,
    /// Seconds that pass.
    pub(super) wait: u8,
}

fn often<T: std::fmt::Debug + Clone + 'static>(
    usual: T,
    other: impl Strategy<Value = T> + 'static,
) -> BoxedStrategy<T> {
    prop_oneof![5 => Just(usual), 1 => other].boxed()
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (
        (any::<u8>(), often(0, 0..6u8), any::<u8>(), often(false, Just(true))),
        (often(u16::MAX, any::<u16>()), often(false, Just(true)), any::<bool>()),
        (often(None, proptest::option::of(0..400u16)), often(0, 0..90u8)),
    );
    let step = step.prop_map(|((op, token, who, stray), (mask, greedy, by_scope), (expires_in, wait))| Step {
        op,
        token,
        who,
        stray,
        mask,
        greedy,
        by_scope,
        expires_in,
        wait,
    });
    proptest::collection::vec(step, 6..36)
}

pub(super) fn seeds() -> impl Strategy<Value = Seed> {
    let cap = || often(None, (10..400u16).prop_map(Some));
    let resource = (proptest::collection::vec(0..4u8, 1..4), cap());
    let agent = (often(u16::MAX, any::<u16>()), often(u16::MAX, any::<u16>()), cap());
    (
        proptest::collection::vec(resource, 1..4),
        proptest::collection::vec(agent, 3..10),
        often(Some(0b1111), proptest::option::of(any::<u8>())),
        often(None, proptest::option::of(any::<u16>())),
        often(8, 1..=8usize),
        steps(),
    )
        .prop_map(|(resources, agents, scopes, entitled, max_chain, steps)| Seed {
            resources,
            agents,
            scopes,
            entitled,
            max_chain,
            steps,
        })
}

/// A world, and beside its registry the plain facts to judge by.
pub(super) struct World {
    pub(super) objects: Vec<Value>,
    pub(super) registry: Registry,
    pub(super) agents: Vec<String>,
    pub(super) resources: Vec<String>,
    /// Every tool: the resource's URI, its name, its scope.
    pub(super) catalogue: Vec<(String, String, String)>,
    /// What each agent may ever have.
    pub(super) ceilings: Vec<Authority>,
    /// Who may hand over to whom.
    pub(super) edges: Vec<Vec<usize>>,
    pub(super) user: UserClaims,
    /// What the user may have.
    pub(super) users: Authority,
    pub(super) tokens: TokenLimits,
    /// The definitions that are accepted, of every second tool.
    pub(super) known: KnownTools,
}

pub(super) fn uri(n: usize) -> String {
    format!("https://r{n}.example.com/mcp")
}

fn permission(uri: &str, tool: &str) -> Permission {
    Permission::unconstrained(uri.parse().unwrap(), tool.parse().unwrap())
}

fn bit(mask: u16, n: usize) -> bool {
    mask >> (n % 16) & 1 == 1
}

fn known(catalogue: &[(String, String, String)]) -> KnownTools {
    let mut known = KnownTools::new();
    for (at, tool, _) in catalogue.iter().step_by(2) {
        let digest = Definition::new(tool, Some(at), &Map::new()).unwrap().digest();
        let id = at.trim_start_matches("https://").split('.').next().unwrap().parse().unwrap();
        let digests = KnownTool { accepted: Some(digest.clone()), seen: Some(digest) };
        known.entry(id).or_default().insert(tool.parse().unwrap(), digests);
    }
    known
}

impl World {
    pub(super) fn new(seed: &Seed) -> Self {
        let catalogue = seed.resources.iter().enumerate().flat_map(|(r, (scopes, _))| {
            let tool =
                move |(t, scope): (usize, &u8)| (uri(r), format!("t{t}"), SCOPES[usize::from(*scope)].to_owned());
            scopes.iter().enumerate().map(tool)
        });
        let catalogue = catalogue.collect::<Vec<_>>();
        let chosen = |mask: u16| {
            let chosen = catalogue.iter().enumerate().filter(|(n, _)| bit(mask, *n));
            chosen.map(|(_, (uri, tool, _))| permission(uri, tool)).collect::<Authority>()
        };
        // By resource: the access entries, or the rules, that mean exactly these tools.
        let entries = |mask: u16| {
            let of = |r: usize| {
                let tools = catalogue.iter().enumerate().filter(|(n, (at, ..))| bit(mask, *n) && *at == uri(r));
                tools.map(|(_, (_, tool, _))| tool.clone()).collect::<Vec<_>>()
            };
            let all = (0..seed.resources.len()).map(|r| (format!("r{r}"), of(r)));
            all.filter(|(_, tools)| !tools.is_empty()).collect::<Vec<_>>()
        };
        let access = |mask| {
            entries(mask).into_iter().map(|(r, tools)| json!({"resource": r, "tools": tools})).collect::<Vec<_>>()
        };
        let count = seed.agents.len();
        let edges = seed.agents.iter().enumerate();
        let edges = edges.map(|(a, (_, to, _))| (0..count).filter(|b| *b != a && bit(*to, *b)).collect::<Vec<_>>());
        let edges = edges.collect::<Vec<_>>();
        let rules = entries(seed.entitled.unwrap_or_default()).into_iter().map(
            |(r, tools)| json!({"to": {"claim": {"name": "groups", "value": "staff"}}, "resource": r, "tools": tools}),
        );
        let mut rules = rules.collect::<Vec<_>>();
        if seed.entitled.is_some() || seed.scopes.is_none() {
            // A rule that never applies, so that there are rules.
            rules.push(json!({"to": {"claim": {"name": "groups", "value": "boss"}}, "tools": ["t0", "t1", "t2"]}));
        }
        let mode = if seed.scopes.is_some() { "ceiling" } else { "ignore" };
        let mut objects = vec![
            json!({"kind": "issuer", "body": {"issuer": LOGIN, "keys": {"inline": {"keys": [{}]}}, "audiences": [US],
            "algorithms": ["RS256"], "token_types": ["jwt"], "subject_scopes": mode, "entitlements": rules}}),
        ];
        for (a, (mask, _, cap)) in seed.agents.iter().enumerate() {
            let to = edges[a].iter().map(|b| format!("a{b}")).collect::<Vec<_>>();
            objects.push(json!({"kind": "agent", "body": {"id": format!("a{a}"), "authentication": secret(),
                "known_as": {LOGIN: [format!("app{a}")]}, "access": access(*mask), "may_delegate_to": to,
                "max_token_lifetime": cap}}));
        }
        for (r, (_, cap)) in seed.resources.iter().enumerate() {
            let tools = catalogue.iter().filter(|(at, ..)| *at == uri(r));
            let tools = tools.map(|(_, tool, scope)| json!({"name": tool, "scope": scope, "effect": "read"}));
            objects.push(json!({"kind": "resource", "body": {"id": format!("r{r}"), "uri": uri(r),
                "authentication": secret(), "tools": tools.collect::<Vec<_>>(), "max_token_lifetime": cap}}));
        }
        let scopes = seed.scopes.map(|bits| {
            let bits = u16::from(bits);
            SCOPES
                .iter()
                .enumerate()
                .filter(|(n, _)| bit(bits, *n))
                .map(|(_, scope)| (*scope).to_owned())
                .collect::<Vec<_>>()
        });
        let by_scope = |(at, tool, scope): &(String, String, String)| {
            scopes.as_ref().is_none_or(|has| has.contains(scope)).then(|| permission(at, tool))
        };
        let by_scope = catalogue.iter().filter_map(by_scope).collect::<Authority>();
        let by_rule = seed.entitled.map(chosen).or(seed.scopes.is_none().then(Authority::default));
        let mut user = bob(&json!(["staff"]));
        user.requester = alice().requester;
        user.scope = scopes.map(|scopes| scopes.iter().map(|scope| scope.parse().unwrap()).collect());
        let known = known(&catalogue);
        Self {
            registry: registry(objects.clone()).with_tools(known.clone()),
            known,
            objects,
            agents: (0..count).map(|a| format!("a{a}")).collect(),
            resources: (0..seed.resources.len()).map(|r| format!("r{r}")).collect(),
            ceilings: seed.agents.iter().map(|(mask, ..)| chosen(*mask)).collect(),
            edges,
            users: by_rule.map_or(by_scope.clone(), |by_rule| by_scope.meet(&by_rule)),
            user,
            tokens: TokenLimits { max_chain: seed.max_chain, ..TokenLimits::default() },
            catalogue,
        }
    }

    pub(super) fn everything(&self) -> Authority {
        self.catalogue.iter().map(|(at, tool, _)| permission(at, tool)).collect()
    }

    /// The scopes whose every tool that the reader has is in `authority`, worked out tool by tool.
    pub(super) fn covered(&self, authority: &Authority, by: Option<&str>) -> Vec<String> {
        let mut covered = Vec::new();
        for scope in SCOPES {
            let read = self.catalogue.iter().filter(|(at, _, s)| s == scope && by.is_none_or(|by| by == at));
            let read = read.map(|(at, tool, _)| (at.parse().unwrap(), tool.parse().unwrap())).collect::<Vec<_>>();
            if !read.is_empty() && read.iter().all(|(at, tool)| authority.allows_every_call(at, tool)) {
                covered.push(scope.to_owned());
            }
        }
        covered.sort();
        covered
    }

    pub(super) fn shut_out(&mut self, id: &str) {
        let body = self.objects.iter_mut().find(|o| o["body"]["id"] == id).unwrap();
        body["body"]["disabled"] = true.into();
        self.registry = registry(self.objects.clone()).with_tools(self.known.clone());
    }

    /// Somebody changes a tool, and an admin accepts that: what was issued for the old one is not for the new one.
    pub(super) fn change_a_tool(&mut self, n: usize) {
        let mut all = self.known.values_mut().flat_map(BTreeMap::iter_mut).collect::<Vec<_>>();
        let count = all.len();
        let Some((name, tool)) = all.get_mut(n % count.max(1)) else { return };
        let text = format!("after {:?}", tool.accepted);
        let next = Definition::new(name.as_str(), Some(&text), &Map::new()).unwrap().digest();
        **tool = KnownTool { accepted: Some(next.clone()), seen: Some(next) };
        self.registry = registry(self.objects.clone()).with_tools(self.known.clone());
    }

    /// Whether each tool is bound to the definition that is accepted now, where there is one.
    pub(super) fn is_up_to_date(&self, authority: &Authority) -> bool {
        authority.iter().all(|p| {
            let id = self.registry.resource_at(&p.resource).unwrap().id.clone();
            let known = self.known.get(&id).and_then(|tools| tools.get(p.tool().unwrap()));
            p.digest == known.and_then(|known| known.accepted.clone())
        })
    }

    pub(super) fn is_shut_out(&self, id: &str) -> bool {
        self.registry.client(&id.parse().unwrap()).unwrap().is_disabled()
    }
}

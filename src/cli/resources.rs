//! `errand resources`: what MCP servers say of their tools, at the terminal of who runs the server.

use errand::{
    app::{Catalogue, Importing},
    domain::tool::{Acceptance, Finding, Sighting, ToolState},
};
use serde_json::Value;
use similar::{Algorithm, ChangeTag, capture_diff_slices, group_diff_ops};

use super::{CliFault, With, operator::inside, say};

/// Who it is in the audit trail.
const BY: &str = "admin:command-line";

pub(super) fn import(name: &str, importing: Importing, with: &With) -> Result<(), CliFault> {
    inside(with, |house| async move {
        let catalogue = house.service.import_catalogue(BY, name, importing, &house.cx()?).await?;
        house.service.finish().await;
        show(&catalogue, importing)
    })
}

pub(super) fn accept(name: &str, tools: &[String], with: &With) -> Result<(), CliFault> {
    let acceptance = |text: &String| {
        let (name, digest) = text.split_once('=').ok_or(CliFault::new("say TOOL=DIGEST, as `diff` shows them"))?;
        Ok(Acceptance { name: name.parse()?, digest: digest.parse()?, tool: None })
    };
    let acceptances = tools.iter().map(acceptance).collect::<Result<Vec<_>, CliFault>>()?;
    inside(with, |house| async move {
        let catalogue = house.service.accept_tools(BY, name, &acceptances, &house.cx()?).await?;
        house.service.finish().await;
        for Acceptance { name, .. } in &acceptances {
            let is_offered = catalogue.resource.tools.iter().any(|tool| tool.name == *name);
            say(format!("{name}: accepted{}", if is_offered { "" } else { "; it is not in the catalogue yet" }))?;
        }
        Ok(())
    })
}

fn show(catalogue: &Catalogue, importing: Importing) -> Result<(), CliFault> {
    say(format!("{} at {}", catalogue.resource.id, catalogue.resource.uri))?;
    for finding in &catalogue.tools {
        let turn = if finding.was == finding.is {
            finding.is.to_string()
        } else {
            format!("{} -> {}", finding.was, finding.is)
        };
        let seen = finding.record.as_ref().and_then(|record| record.seen.as_ref());
        say(format!("{:24} {turn:24} {}", finding.tool.as_str(), seen.map_or("", |seen| seen.digest.as_str())))?;
        // What nobody has looked at yet, an import accepts as it is: so it is shown before.
        if finding.was == ToolState::Unchecked || matches!(finding.is, ToolState::Changed | ToolState::Proposed) {
            show_definitions(finding)?;
        }
    }
    if let Some(unusable @ 1..) = catalogue.unusable {
        say(format!("and {unusable} that can't be used: a bad name, or a description or a schema that is too large"))?;
    }
    let waits = catalogue.tools.iter().any(|f| matches!(f.is, ToolState::Changed | ToolState::Proposed));
    match importing {
        Importing::Show => say("nothing was changed; `errand resources import` keeps it"),
        Importing::Keep if waits => {
            say("accept what you have looked at with `errand resources accept NAME TOOL=DIGEST`")
        }
        Importing::Keep => say("kept"),
    }
}

/// Line by line what is different. A stranger wrote it, so nothing of it steers a terminal.
fn show_definitions(finding: &Finding) -> Result<(), CliFault> {
    let Some(record) = &finding.record else { return Ok(()) };
    let accepted = record.accepted.as_ref().filter(|_| finding.was != ToolState::Unchecked);
    differences(&lines(accepted), &lines(record.seen.as_ref())).into_iter().try_for_each(say)
}

/// What goes and what comes, each where it stands, with three lines around it.
fn differences(before: &[String], after: &[String]) -> Vec<String> {
    let all = group_diff_ops(capture_diff_slices(Algorithm::Patience, before, after), 3);
    let changes = all.iter().flatten().flat_map(|op| op.iter_changes(before, after));
    let lines = changes.map(|change| {
        let sign = match change.tag() {
            ChangeTag::Delete => '-',
            ChangeTag::Insert => '+',
            ChangeTag::Equal => ' ',
        };
        format!("  {sign} {}", change.value())
    });
    lines.collect()
}

fn lines(sighting: Option<&Sighting>) -> Vec<String> {
    let parsed = sighting.and_then(|sighting| serde_json::from_str::<Value>(&sighting.definition).ok());
    let text = parsed.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_default();
    text.lines().map(shown).collect()
}

/// Letters, digits, signs of ASCII and blanks as they are; everything else by its number, such as what turns writing around.
fn shown(text: &str) -> String {
    let sign = |c: char| {
        if c.is_alphanumeric() || c.is_ascii_graphic() || c == ' ' {
            c.to_string()
        } else {
            c.escape_unicode().to_string()
        }
    };
    text.chars().map(sign).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_its_place_is_shown() {
        let text = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (before, after) = (text(&["from: read", "to: overwrite"]), text(&["from: overwrite", "to: read"]));
        let shown = differences(&before, &after);
        assert_eq!(shown, ["  - from: read", "  - to: overwrite", "  + from: overwrite", "  + to: read"]);
        let (before, after) = (text(&["a", "b", "c"]), text(&["b", "a", "c"]));
        assert!(differences(&before, &after).iter().any(|line| line.starts_with("  -")));
        assert_eq!(differences(&[], &text(&["all", "of it"])), ["  + all", "  + of it"]);
        assert!(differences(&after, &after).is_empty());
    }

    #[test]
    fn a_strangers_text_can_not_steer_a_terminal() {
        assert_eq!(shown("Größe 7: {\"a\"}"), "Größe 7: {\"a\"}");
        assert_eq!(shown("\u{1b}[2Jgone\u{202e}txt\u{200b}\u{7}"), "\\u{1b}[2Jgone\\u{202e}txt\\u{200b}\\u{7}");
    }
}

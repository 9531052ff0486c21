//! `errand resources`: what MCP servers say of their tools, at the terminal of who runs the server.

use errand::{
    app::{Catalogue, ImportMode},
    domain::registry::tool::{Acceptance, ObservedDefinition, ToolDiff, ToolState},
};
use serde_json::Value;
use similar::{Algorithm, ChangeTag, capture_diff_slices, group_diff_ops};

use super::{CliError, ConfigArgs, operator::with_server, print_line};

/// Who it is in the audit trail.
const ACTOR: &str = "admin:command-line";

pub(super) fn import(name: &str, importing: ImportMode, with: &ConfigArgs) -> Result<(), CliError> {
    with_server(with, |house| async move {
        let catalogue = house.service.import_catalogue(ACTOR, name, importing, &house.system_context()?).await?;
        house.service.shutdown().await;
        print_catalogue(&catalogue, importing)
    })
}

pub(super) fn accept(name: &str, tools: &[String], with: &ConfigArgs) -> Result<(), CliError> {
    let acceptance = |text: &String| {
        let (name, digest) = text.split_once('=').ok_or(CliError::new("say TOOL=DIGEST, as `diff` shows them"))?;
        Ok(Acceptance { name: name.parse()?, digest: digest.parse()?, tool: None })
    };
    let acceptances = tools.iter().map(acceptance).collect::<Result<Vec<_>, CliError>>()?;
    with_server(with, |house| async move {
        let catalogue = house.service.accept_tools(ACTOR, name, &acceptances, &house.system_context()?).await?;
        house.service.shutdown().await;
        for Acceptance { name, .. } in &acceptances {
            let is_offered = catalogue.resource.tools.iter().any(|tool| tool.name == *name);
            print_line(format!(
                "{name}: accepted{}",
                if is_offered { "" } else { "; it is not in the catalogue yet" }
            ))?;
        }
        Ok(())
    })
}

fn print_catalogue(catalogue: &Catalogue, importing: ImportMode) -> Result<(), CliError> {
    print_line(format!("{} at {}", catalogue.resource.id, catalogue.resource.uri))?;
    for finding in &catalogue.tools {
        let turn = if finding.previous_state == finding.state {
            finding.state.to_string()
        } else {
            format!("{} -> {}", finding.previous_state, finding.state)
        };
        let seen = finding.record.as_ref().and_then(|record| record.observed.as_ref());
        print_line(format!("{:24} {turn:24} {}", finding.tool.as_str(), seen.map_or("", |seen| seen.digest.as_str())))?;
        // What nobody has looked at yet, an import accepts as it is: so it is shown before.
        if finding.previous_state == ToolState::Unchecked
            || matches!(finding.state, ToolState::Changed | ToolState::Proposed)
        {
            print_definitions(finding)?;
        }
    }
    if let Some(unusable @ 1..) = catalogue.unusable {
        print_line(format!(
            "and {unusable} that can't be used: a bad name, or a description or a schema that is too large"
        ))?;
    }
    let waits = catalogue.tools.iter().any(|f| matches!(f.state, ToolState::Changed | ToolState::Proposed));
    match importing {
        ImportMode::DryRun => print_line("nothing was changed; `errand resources import` keeps it"),
        ImportMode::Apply if waits => {
            print_line("accept what you have looked at with `errand resources accept NAME TOOL=DIGEST`")
        }
        ImportMode::Apply => print_line("kept"),
    }
}

/// Line by line what is different. A stranger wrote it, so nothing of it steers a terminal.
fn print_definitions(finding: &ToolDiff) -> Result<(), CliError> {
    let Some(record) = &finding.record else { return Ok(()) };
    let accepted = record.accepted.as_ref().filter(|_| finding.previous_state != ToolState::Unchecked);
    diff_lines(&definition_lines(accepted), &definition_lines(record.observed.as_ref()))
        .into_iter()
        .try_for_each(print_line)
}

/// What goes and what comes, each where it stands, with three lines around it.
fn diff_lines(before: &[String], after: &[String]) -> Vec<String> {
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

fn definition_lines(sighting: Option<&ObservedDefinition>) -> Vec<String> {
    let parsed = sighting.and_then(|sighting| serde_json::from_str::<Value>(&sighting.definition).ok());
    let text = parsed.and_then(|value| serde_json::to_string_pretty(&value).ok()).unwrap_or_default();
    text.lines().map(escape_unprintable).collect()
}

/// Letters, digits, signs of ASCII and blanks as they are; everything else by its number, such as what turns writing around.
fn escape_unprintable(text: &str) -> String {
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
    fn moved_lines_are_shown() {
        let text = |lines: &[&str]| lines.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (before, after) = (text(&["from: read", "to: overwrite"]), text(&["from: overwrite", "to: read"]));
        let shown = diff_lines(&before, &after);
        assert_eq!(shown, ["  - from: read", "  - to: overwrite", "  + from: overwrite", "  + to: read"]);
        let (before, after) = (text(&["a", "b", "c"]), text(&["b", "a", "c"]));
        assert!(diff_lines(&before, &after).iter().any(|line| line.starts_with("  -")));
        assert_eq!(diff_lines(&[], &text(&["all", "of it"])), ["  + all", "  + of it"]);
        assert!(diff_lines(&after, &after).is_empty());
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape_unprintable("Größe 7: {\"a\"}"), "Größe 7: {\"a\"}");
        assert_eq!(
            escape_unprintable("\u{1b}[2Jgone\u{202e}txt\u{200b}\u{7}"),
            "\\u{1b}[2Jgone\\u{202e}txt\\u{200b}\\u{7}"
        );
    }
}

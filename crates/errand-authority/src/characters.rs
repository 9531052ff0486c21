//! Classes of characters that a reader does not see. The tables are checked against the Unicode
//! data by tests.

/// Returns whether a tool may trim or skip the character: white space and default-ignorable code
/// points (DerivedCoreProperties.txt).
#[must_use]
pub fn is_ignorable(c: char) -> bool {
    c.is_whitespace()
        || is_format_character(c)
        || matches!(c, '\u{34f}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}')
        || matches!(c, '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{ffa0}' | '\u{e0000}'..='\u{e0fff}')
}

/// Returns whether the character has the general category Cf (joiners, direction marks, tags), or
/// is a reserved code point between such characters.
#[must_use]
pub fn is_format_character(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}')
        || matches!(c, '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
        || matches!(c, '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}')
        || matches!(c, '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

    use super::*;

    fn chars(predicate: impl Fn(char) -> bool) -> BTreeSet<char> {
        ('\0'..=char::MAX).filter(|c| predicate(*c)).collect()
    }

    #[test]
    fn format_characters_equal_unicode_data() {
        let category = |c: char| c.general_category();
        let missing = chars(|c| category(c) == GeneralCategory::Format && !is_format_character(c));
        assert_eq!(missing, BTreeSet::new());
        // The ranges span reserved code points, which Unicode keeps for such characters, and the
        // variation selectors beside the tags.
        let others = chars(|c| is_format_character(c) && category(c) != GeneralCategory::Format);
        let expected = |c: char| {
            matches!(c, '\u{2065}' | '\u{fff0}'..='\u{fff8}' | '\u{e0000}'..='\u{e0fff}')
                && matches!(category(c), GeneralCategory::Unassigned | GeneralCategory::NonspacingMark)
        };
        assert_eq!(others.into_iter().filter(|c| !expected(*c)).collect::<BTreeSet<_>>(), BTreeSet::new());
    }
}

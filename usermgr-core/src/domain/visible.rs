//! Which characters a text that people read may hold: none that is invisible or turns the direction of its neighbours.
//!
//! A name with U+202E reads backwards, and two names that differ in U+200B look alike (UTS 39 §3; RFC 8264 §9.13 forbids
//! what is ignorable by default). Joiners and variation selectors change how their neighbours look: Persian and Indic names and
//! many emoji need them, so they are taken where they do something, and nowhere else.

/// Zero width non-joiner and joiner.
const JOINERS: [char; 2] = ['\u{200C}', '\u{200D}'];

/// Whether every character of a text is seen, or changes how its neighbours look.
pub(crate) fn is_visible(text: &str) -> bool {
    safely(text).all(|(_, is_safe)| is_safe)
}

/// The text without what deceives.
pub(crate) fn without_invisible(text: &str) -> String {
    safely(text).filter(|(_, is_safe)| *is_safe).map(|(c, _)| c).collect()
}

fn safely(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut before = None;
    let mut rest = text.chars().peekable();
    std::iter::from_fn(move || {
        let c = rest.next()?;
        let is_safe = is_safe(before, c, rest.peek().copied());
        before = Some(c);
        Some((c, is_safe))
    })
}

fn is_safe(before: Option<char>, c: char, after: Option<char>) -> bool {
    if JOINERS.contains(&c) {
        let (Some(before), Some(after)) = (before, after) else { return false };
        let joins_letters = is_joining_script(before) && is_joining_script(after);
        let joins_emoji = c == '\u{200D}' && (is_emoji(before) || before == '\u{FE0F}') && is_emoji(after);
        return joins_letters || joins_emoji;
    }
    match c {
        // Of text or emoji: `❤️`, `1️⃣`.
        '\u{FE0E}' | '\u{FE0F}' => {
            before.is_some_and(|b| is_emoji(b) || matches!(b, '0'..='9' | '#' | '*' | '©' | '®'))
        }
        // Of an ideograph: Japanese names.
        '\u{FE00}'..='\u{FE0D}' | '\u{E0100}'..='\u{E01EF}' => before.is_some_and(is_ideograph),
        '\u{180B}'..='\u{180D}' | '\u{180F}' => before.is_some_and(|b| matches!(b, '\u{1820}'..='\u{18AA}')),
        _ => !c.is_control() && !is_invisible(c),
    }
}

/// What is ignorable by default (DerivedCoreProperties.txt), separates lines, marks annotations or is a blank with another name.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}' | '\u{180B}'..='\u{180F}'
        | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{2800}' | '\u{3164}'
        | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}' | '\u{FFF0}'..='\u{FFFB}' | '\u{1BCA0}'..='\u{1BCA3}'
        | '\u{1D173}'..='\u{1D17A}' | '\u{E0000}'..='\u{E0FFF}')
}

/// Scripts whose letters join: Arabic, Syriac, N'Ko, those of India and South East Asia, Mongolian.
fn is_joining_script(c: char) -> bool {
    matches!(c, '\u{600}'..='\u{DFF}' | '\u{1000}'..='\u{109F}' | '\u{1780}'..='\u{17D3}' | '\u{1807}'..='\u{18AA}'
        | '\u{A8E0}'..='\u{A8FF}' | '\u{11000}'..='\u{11FFF}' | '\u{1E900}'..='\u{1E95F}')
        && !is_invisible(c)
}

fn is_emoji(c: char) -> bool {
    matches!(c, '\u{203C}' | '\u{2049}' | '\u{2122}' | '\u{2139}' | '\u{2190}'..='\u{2BFF}' | '\u{3030}' | '\u{303D}'
        | '\u{3297}' | '\u{3299}' | '\u{1F000}'..='\u{1FAFF}')
        && c != '\u{2800}'
}

fn is_ideograph(c: char) -> bool {
    matches!(c, '\u{3400}'..='\u{4DBF}' | '\u{4E00}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_seen_is_refused_and_names_of_every_script_are_taken() {
        for deceiving in [
            "ad\u{200B}min",
            "\u{202E}nimda",
            "ana\u{2066}",
            "ana\u{200F}",
            "\u{FEFF}ana",
            "a\u{AD}na",
            "ana\u{2060}",
            "\u{3164}",
            "ana\u{2028}",
            "ana\u{E0041}",
            "a\u{200D}na",
            "a\u{200C}na",
            "\u{200D}",
            "می\u{200C}",
            "😀\u{200D}",
            "می\u{200C}\u{200C}خواهم",
            "a\u{FE0F}",
            "ana\u{FE0F}",
            "❤\u{FE0F}\u{FE0F}",
            "a\u{E0100}",
            "ana\u{2800}",
            "\u{34F}a",
            "ana\u{1D173}",
            "a\u{7}b",
        ] {
            assert!(!is_visible(deceiving), "{deceiving:?}");
            let shown = without_invisible(deceiving);
            assert!(is_visible(&shown), "{deceiving:?} {shown:?}");
        }
        for name in [
            "Ana O'Ñandú",
            "می\u{200C}خواهم",
            "क\u{94D}\u{200D}ष",
            "שרה",
            "محمد",
            "👩\u{200D}🚀",
            "❤\u{FE0F}",
            "1\u{FE0F}\u{20E3}",
            "👨\u{200D}👩\u{200D}👧",
            "🏳\u{FE0F}\u{200D}🌈",
            "葛\u{E0100}城",
            "ᠮ\u{180B}ᠣ",
            "Nguyễn",
            "jose\u{301}",
            "李小龙",
            "😀",
        ] {
            assert!(is_visible(name), "{name:?}");
            assert_eq!(without_invisible(name), name);
        }
    }
}

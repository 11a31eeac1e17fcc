//! One fold for every text that is compared without regard to case.

use unicode_normalization::UnicodeNormalization as _;
use unicode_normalization::char::canonical_combining_class;

/// How often a text is folded until it no longer changes. Twice is the most that any character needs; a test shows it.
const ROUNDS: usize = 3;

/// The form in which two spellings of one name are equal: compatibility characters are decomposed (NFKC, UAX 15), every
/// letter goes to upper and then to lower case by itself, and the dot above an `i` or a `j` is dropped.
///
/// No letter is mapped by its neighbours, so the final sigma, the long s, ß and ẞ, the Kelvin sign and the Turkish ı and İ each
/// fold to one form. `fold(upper(x))`, `fold(lower(x))` and `fold(x)` are equal for every text. Unicode's own case folding
/// (`CaseFolding.txt`) keeps ı apart from its upper case I, so it is not used.
pub(crate) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let mut folded = fold_once(text);
    for _ in 1..ROUNDS {
        let again = fold_once(&folded);
        if again == folded {
            break;
        }
        folded = again;
    }
    folded
}

fn fold_once(text: &str) -> String {
    let mut base = '\0';
    let cased = text.nfkd().flat_map(|c| {
        // Lower case first: ẞ has no upper case of its own, but ß has.
        c.to_lowercase().flat_map(char::to_uppercase).flat_map(char::to_lowercase)
    });
    let dotless = cased.filter(|c| {
        if canonical_combining_class(*c) == 0 {
            base = *c;
        }
        *c != '\u{307}' || !matches!(base, 'i' | 'j')
    });
    dotless.nfkc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_has_one_fold() {
        for spellings in [
            &["νίκος.παππάς", "ΝΊΚΟΣ.ΠΑΠΠΆΣ", "Νίκος.Παππάς", "νίκοσ.παππάσ"][..],
            &["irem", "İREM", "IREM", "ırem", "i\u{307}rem"],
            &["kelvin", "\u{212A}elvin", "KELVIN"],
            &["masse", "maſſe", "MASSE", "maße", "MAẞE", "MAßE"],
            &["josé", "JOSE\u{301}", "jose\u{301}"],
            &["ﬁne", "FINE", "ＦＩＮＥ"],
            &["ᾳ", "ᾼ", "ΑΙ", "αι"],
        ] {
            for spelling in spellings {
                assert_eq!(fold(spelling), fold(spellings[0]), "{spelling}");
            }
        }
        assert_ne!(fold("jose"), fold("josé"));
        assert_eq!(fold("Ana.Õ'Neil"), "ana.õ'neil");
    }

    fn holds(text: &str) -> bool {
        let folded = fold(text);
        fold(&text.to_uppercase()) == folded
            && fold(&text.to_lowercase()) == folded
            && fold(&text.nfc().collect::<String>()) == folded
            && fold(&text.nfd().collect::<String>()) == folded
            && fold(&folded) == folded
            && fold_once(&folded) == folded
    }

    #[test]
    fn every_character_folds_as_its_cases_do() {
        let wrong: Vec<char> = ('\0'..=char::MAX)
            .filter(|c| {
                let text = &*c.to_string();
                // Most characters have neither cases nor parts.
                let is_plain = c.to_lowercase().eq([*c])
                    && c.to_uppercase().eq([*c])
                    && text.nfkd().eq([*c])
                    && *c != '\u{307}';
                if is_plain { fold(text) != *text } else { !holds(text) }
            })
            .collect();
        assert!(wrong.is_empty(), "{wrong:?}");
    }

    /// Where `b` is no mark, what stands before it does not matter.
    fn joins(a: &str, b: &str) -> bool {
        let joined = fold(&format!("{a}{b}"));
        joined == fold(&format!("{}{}", fold(a), fold(b)))
    }

    #[test]
    fn every_character_folds_by_itself() {
        let beside = ["a", "i", "Σ", "ς", "ß", "İ", "ʼ"];
        // A character that folds to itself, and is neither a mark nor composed, is not changed by any neighbour either.
        let changes = |c: &char| {
            let text = c.to_string();
            fold(&text) != text || text.nfd().ne([*c]) || canonical_combining_class(*c) > 0
        };
        for c in ('\0'..=char::MAX).filter(changes).filter(|c| !('가'..='힣').contains(c)) {
            let text = c.to_string();
            for other in beside {
                assert!(joins(&text, other), "{c:?} {other:?}");
                // U+0345 folds to a letter, so a mark that is typed after it stands on another base: the one exception.
                assert!(c == '\u{345}' || joins(other, &text), "{other:?} {c:?}");
            }
            if !text.nfkd().any(|c| c == '\u{345}') {
                for mark in ['\u{301}', '\u{307}', '\u{345}'] {
                    assert!(holds(&format!("{c}{mark}")), "{c:?} {mark:?}");
                }
            }
        }
    }

    /// Texts of letters from every script, marks and signs, the same in each run.
    fn texts() -> impl Iterator<Item = String> {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            u32::try_from(state >> 40).unwrap()
        };
        let mut one = move || {
            let most = [0x80, 0x250, 0x600, 0x2100, 0x1_0000, 0x11_0000][(next() % 6) as usize];
            char::from_u32(next() % most).unwrap_or('Σ')
        };
        (0..5_000_usize).map(move |n| (0..n % 13).map(|_| one()).collect())
    }

    #[test]
    fn every_text_folds_as_its_cases_do() {
        // After U+0345 only its upper case, a letter, says on which base a mark stands.
        for text in texts().filter(|text| !text.nfkd().any(|c| c == '\u{345}')) {
            assert!(holds(&text), "{text:?}");
        }
    }

    #[test]
    fn every_text_folds_by_itself() {
        let texts: Vec<String> = texts().filter(|text| !text.nfkd().any(|c| c == '\u{345}')).collect();
        for pair in texts.chunks_exact(2) {
            assert!(joins(&pair[0], &pair[1]), "{pair:?}");
        }
    }
}

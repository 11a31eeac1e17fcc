use super::*;

const PASSWORDS: [&str; 2] = ["correct horse battery staple", "p\u{e4}ssw\u{f6}rd-\u{f1}"];

/// Who made them, and one hash for each password.
const MADE: &[(&str, [&str; 2])] = &[
    (
        "Django 5.2",
        [
            "pbkdf2_sha256$1500$r9Wcwus0cah9aU6TcGgQ8i$D3eiF9LmLhtsNjIVraC26CzmObnUf/IFOSaQ6KZLRfM=",
            "pbkdf2_sha256$1500$3KRQFQJGqJFddQyAZsngJI$Vjxw1K4jrr+unt7H9FgPRmks9XS6qQ7Aw8/U/5h77gM=",
        ],
    ),
    (
        "Django 5.2",
        [
            "pbkdf2_sha1$1500$wRoaYlD2r3gWfDJFf9YK68$LkswP1Yp4G3wkV2ttygo7PsFZbQ=",
            "pbkdf2_sha1$1500$FIAUJ3bkukZa6VHsNLlMrG$a85bUcM9K0IQH0I44QDQ6qrSjBU=",
        ],
    ),
    (
        "Django 5.2 with argon2-cffi 25.1",
        [
            "argon2$argon2id$v=19$m=64,t=2,p=2$cXJ2a3BjM0htM1B6S1N4VjlJTUVMMg$NxFk+BYE6RX30O4Lxoc+eq2tze58RaAoUjeXoRYKHqc",
            "argon2$argon2id$v=19$m=64,t=2,p=2$aTFDZWtKRTNDVUNiU005RXdQQjk3UQ$bK1d+WJgiPirlRcQbfq7jea6jGL/MleLeAM7w9L520g",
        ],
    ),
    (
        "Django 5.2 with bcrypt 4.0",
        [
            "bcrypt_sha256$$2b$04$jV2QQK4xqUSt45dHeGg9Ku/SUsz3DxKVmkC4GdyJUs4rm9gn/QyBG",
            "bcrypt_sha256$$2b$04$C35JSIdk8LQQ/n0G5nesQudxROEcugyH4X23UxpTVoYZAkKFsnOtG",
        ],
    ),
    (
        "Django 5.2 with bcrypt 4.0",
        [
            "bcrypt$$2b$04$YAgAe1CjtAwkAbB8abanEO6tAVrI0b2ibevLFnJXm1CGpmtbVI41q",
            "bcrypt$$2b$04$Q5oGiga2o71.0CVwoF9Rbek0rmrQj9.d1H1CwvsfeMp0n0M8cqQcC",
        ],
    ),
    (
        "Django 5.2",
        [
            "scrypt$64$oJ95BSAqJTd4u3XO45Syoj$8$5$nu+r7em1QVtdZQAcS45Et0sXuux8+8kG8FaD/zqBvgt5Q69mlZ9ffxAueluFFnU0Or8lXVvBv12dYtNy9S7OaQ==",
            "scrypt$64$I0f4Apidkd5SU3gZsmXoTq$8$5$bb42ZwOvOe8RAItlU4kofdkYYV4njVwbPv+yPYyspG0OaOjHEC/80YzAGJ852JvI4KS5/DXGBOKEyPVBMlL7uw==",
        ],
    ),
    (
        "passlib 1.7",
        [
            "$pbkdf2-sha256$1500$o1RKSQlBSMk5B8C4F4KwFg$MzTHL0KB.6xlT0Tp08ZXjAoKZ.iGUsHy5.JI9rcydbQ",
            "$pbkdf2-sha256$1500$PKe0dq6VEkJoLaV07n2PMQ$dCfwVuFnacO6V3fHuBfsDKLaVhPe8up70duvaNm4wPw",
        ],
    ),
    (
        "passlib 1.7",
        [
            "$pbkdf2-sha512$1500$ghCiNCaklPKes9ZaizFmzA$GUk5wQGYMqCaMy2JREGMdVa2IBa3Q.GeCQWzwu3QzrA4Cz.RL7KQGUxqJ2tS5lbMeyWwS.Nj16NS6sfqM6Draw",
            "$pbkdf2-sha512$1500$Yex9b43R2jsnxBjDWKtV6g$Tkmt34HLmU/XUVLOneByclyxihIkszkfo9MiJPLYroiiBeFIVdNK8Ncj3esYnDtRyxX1vnNAzLyd8avvKf.b9g",
        ],
    ),
    (
        "passlib 1.7",
        [
            "$pbkdf2$1500$aq21Nsb4f0.J0ZqzFmLsfQ$s4/axFYC8s.C2nxi2wWQKyuoYcU",
            "$pbkdf2$1500$ZKw1hhBijJGSsjYGYGwtJQ$BX9.MwsORQ0fygdLaQATkn7o33Y",
        ],
    ),
    (
        "passlib 1.7",
        [
            "$scrypt$ln=6,r=8,p=1$613rfS+FkPJ+T6m11tqb0w$5rYDUcnILGKl53jwottb5ThCbBXwDB2LMohp0056pKU",
            "$scrypt$ln=6,r=8,p=1$lJJS6h1j7N279/5/TymFUA$yw9dKUYnK8KyqkJMKoesyddSu21LC1USeUUBjtvp2R4",
        ],
    ),
    (
        "passlib 1.7",
        [
            "$2a$04$DVtSQa7D./BnRDEqJnxNGe2DfUTE9.QookHZ0Ba0S6veNoe1AZnsK",
            "$2a$04$tDvbs6M4NpDaXIsgpU5Ia.jTNPuV22.Ofp3JFixb/WHucqw8fwmaa",
        ],
    ),
    (
        "passlib 1.7",
        [
            "$2y$04$JnRmJnDtFZMfMJbud4hbDe6uAPNCoEfNrusuzGz5ItxSCcEOmqCIy",
            "$2y$04$o7UTqGs5uqG4Q81HzxF6a.IOZTtluo8w6tPUQagrRhs6eNG4S3y3a",
        ],
    ),
    (
        "Werkzeug 3.1",
        [
            "pbkdf2:sha256:1500$si5l3dhIfg6puf5X$f28b56011437459069a5fb9800df9dac509d80ba2fe41155a37024d38dbf477b",
            "pbkdf2:sha256:1500$LK9tZA6VQTM1iARk$785d2ec0cd1faffd4c2ad5bc72b4a082717f9d96f78babfea314133b9c42806a",
        ],
    ),
    (
        "Werkzeug 3.1",
        [
            "pbkdf2:sha512:1500$JfbAEogdQIJBXaOQ$b0cb7cef2e50098e5d8bf145f78ff9d21936ea84defb7f877c88e6d189b0648b3768182b4ad6f0e8afe0da8afea9f8251ff6bce09dceaa941a552c017e3fb5a8",
            "pbkdf2:sha512:1500$UIjqPoYSBkHexeni$8fb2d65167ef64c6b681c225e921d373a62fee30be0d70bcb5fbbb69d5fd588efc6b81959a30b8cf775e3c5576399f4cea46625bbcd72ca792a7c8df0bd8e2ec",
        ],
    ),
    (
        "Werkzeug 3.1",
        [
            "pbkdf2:sha1:1500$eYarEwauOGTKv62H$0feeda82699b06d06f82db3973da646fd8527744",
            "pbkdf2:sha1:1500$pPxzdNUKm1glj5K9$5be6d8c45a4f754423f634b8dcc6fb0875b11beb",
        ],
    ),
    (
        "Werkzeug 3.1",
        [
            "scrypt:1024:8:1$kBPOcBdivmzwV8uc$811e359c2f74a0169325ab0c6c3a9bbf247fab573723141d481732b5d0da258da6bc6ec374b0d581a3bbfb4e371fa23cf365b54ebe4705d49e4b08ab02f2e0b7",
            "scrypt:1024:8:1$kRUvyzVoMRP5vGkB$6fa4039a863413dcdbc83d44f697cb7ef37e17c1f8aa4a439b1fc3febbd628f2504188528fd405e9cc2cc5bdff7bb99faec5d48b488368e17230dfa5c1995e52",
        ],
    ),
    (
        "bcrypt 4.0 of Python",
        [
            "$2b$04$3CX66k82MbR4QRoY2MD4rOL1kzR3ZsLe0QPnApB3Djl/2TVeo8Fj2",
            "$2b$04$La8rHd7PToVKH8h5S76uQe.o0aDRa3t7lO5S0aRv4N.YBejveMmV2",
        ],
    ),
    (
        "argon2-cffi 25.1, the reference implementation in C",
        [
            "$argon2i$v=19$m=64,t=2,p=1$Sh8DWCX5mksEQvcihyGRQg$mgFTFLcORJp9jC/aSh1NH6AGPUm8fzsyMgppjyF5jyw",
            "$argon2i$v=19$m=64,t=2,p=1$8j9KlYtPdsVDuQEQ3iKUvA$//eXjcy9gKV7RDS89/bDtThvsoqpaWyOYHvJcPXqmis",
        ],
    ),
    (
        "argon2-cffi 25.1, the reference implementation in C",
        [
            "$argon2i$v=16$m=64,t=2,p=1$Io+hpf7qDhOe7urX9S4zdQ$gc1FBu8FhmvI8NxBuZ7C4zNSjLyhSwnHFWZHD12oiBk",
            "$argon2i$v=16$m=64,t=2,p=1$BB6HsjY4XkIDYPAEvcX+UQ$qq54KST2pQZe0pi6ZSyYxcaeHm2K0vkhC8bEhaVWNKo",
        ],
    ),
    (
        "argon2-cffi 25.1, the reference implementation in C",
        [
            "$argon2d$v=19$m=64,t=2,p=1$MiQQdTMkd6bsVpl9SXFGkQ$cjB8FYfiO216gypNlkpSGDG0WJK4HHLwCyBOWMsA3Qc",
            "$argon2d$v=19$m=64,t=2,p=1$6XnYIF0rGRA1Nkb7NeX7KQ$gS+EpMITT5GzMO5gltL8km1qeFmTKY47TRv8EA7+pxs",
        ],
    ),
    (
        "argon2-cffi 25.1, the reference implementation in C",
        [
            "$argon2d$v=16$m=64,t=2,p=1$KRaGgbEAx8EgjaHblw79CQ$bAcVcFA9RpyJTWSnOd6+cz/Psg9oGvOb3Xa7Y3IXeug",
            "$argon2d$v=16$m=64,t=2,p=1$uCXOzCLfwkIzKU06Bx0rBA$UUhjDOo+CH0qkY5ce2K3S3iKKyYiY94DdE5NFekSHCA",
        ],
    ),
    (
        "argon2-cffi 25.1, the reference implementation in C",
        [
            "$argon2id$v=19$m=64,t=2,p=1$nrMiYUirNNKGx099roZhPw$qLoHvKl8ROyG5EF0gwTLyl1Rrpi4n7oPaNlpBJgHMKk",
            "$argon2id$v=19$m=64,t=2,p=1$5KeKZqF6awsurejUbTswDw$mWUtUrrBn3zkV7UewZgDYBsenovHY9cLqY+9LBKUmlM",
        ],
    ),
    (
        "argon2-cffi 25.1, the reference implementation in C",
        [
            "$argon2id$v=16$m=64,t=2,p=1$uF5jPkbZakCsGbeR/IU0zA$Irz7Nq4edaqYdH5GehS1wGm/Q5ffT1u+a8MrHssXZ54",
            "$argon2id$v=16$m=64,t=2,p=1$FbhUEHYf8OBXoqJBuIrfSQ$SiDoDQKt9cVuAq7YgrApLVDrFGO1X+nj3iEmcxrvD2E",
        ],
    ),
    (
        "RustCrypto pbkdf2 0.13 and, the same, 0.12",
        [
            "$pbkdf2-sha256$i=1500,l=32$BwECAwQFBgcICQoLDA0OHA$gF1zc/UWQnTew+9hFIaM3QTALTbtgyXtHc7ys0JOmlU",
            "$pbkdf2-sha256$i=1500,l=32$BwECAwQFBgcICQoLDA0ODQ$HHqZ2C53x0B8zQv7K+2DxhRdJzqTXAtncLehdhdVbEQ",
        ],
    ),
    (
        "RustCrypto pbkdf2 0.13",
        [
            "$pbkdf2-sha512$i=1500,l=64$BwECAwQFBgcICQoLDA0OHA$zYECmjhtIT7MJ5RRF9ODAaBr345gkkOZOh4gl09w1ipYYLZIyGFFs/XAZvj6AluJXzGX50FrnqEiwoyOnWurLw",
            "$pbkdf2-sha512$i=1500,l=64$BwECAwQFBgcICQoLDA0ODQ$sqG28uM+l3RdQK6OkciPVu3PyMU67CNp7uhO7OPngcY90kToUah94mvLt51DotnBU7YLCzoB+pH3ckjFGVbUhw",
        ],
    ),
    (
        "RustCrypto scrypt 0.12 and, the same, 0.11",
        [
            "$scrypt$ln=6,r=8,p=2$BwECAwQFBgcICQoLDA0OHA$ZpA7F/3LKQSLXvChMs5CH+89ExzP3ubW7p9+c+bqSWs",
            "$scrypt$ln=6,r=8,p=2$BwECAwQFBgcICQoLDA0ODQ$8JUtT/m8BerTZv5BCx56gAajEwX4DmpEN5hj20fum9k",
        ],
    ),
    (
        "PHP 8.2, password_hash",
        [
            "$2y$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
            "$2y$04$AdAOSo3v5R9cl/xJehzivOfMdI86jUKa.HSSuAlAL0wceAYcSuVqS",
        ],
    ),
    (
        "PHP 8.2, password_hash",
        [
            "$argon2i$v=19$m=64,t=2,p=1$SFZJQTF2QzZJdndVck1Qdg$7HXJrEbG6wz0wFn5pJLy+UwOfc9VdTxAfnBBKOtJ2qw",
            "$argon2i$v=19$m=64,t=2,p=1$YWUyYi5ac3BYZXZVeGVWUw$Xx/8sMJcwbVAjFB6RxxeHn9IJdjHaSm9GvoIFgAG/3Q",
        ],
    ),
    (
        "bcrypt of Ruby, which Devise uses",
        [
            "$2a$04$FqsoQacklFhdtxltBeBBcu8N14VJwS.EmPp9sfD5X9lV5QvkubzPO",
            "$2a$04$u7dPrf5htGBwFW/Jg8h8R.FiCArpyHzPdqxWXmahvr.6yXZZ8bTLu",
        ],
    ),
];

/// Made by argon2-cffi 25.1 of the first password, with a longer salt and output than a PHC parser need take.
const ARGON2_WIDE: &str = "$argon2id$v=19$m=64,t=1,p=1$NWr83aqLdoi15ZuFSwJaxstVPl4V9bcFwHvZRwYCnUM/QH3lBqE7E+K8pjTCEUlg8oa2oiRpKyZFerN+VfbXbg$dPggrdAZmWsUM62xsg09g1BpntoVx6e7CmqsG4c/VWLqVkCZzgAGt4FyWQAhHgAODAjZD7lPjGk6E4KPggugrV0UeYKRx7jM5yZe9vzke9OpAl5tvz/kkShdQH1+Gf6WHutIKepsQ2aEDYNz4BN0nks+2ys+goAafOYW2Rch1ZI";

/// Made by bcrypt 4.0 of Python of the first 71, 72, 73 and 100 bytes of `0123456789…`.
const BCRYPT_LONG: [(usize, &str); 4] = [
    (71, "$2b$04$H1PE2HcGLPTWHjLjgAJ9c.Sgn7AmoqcwEVmI0mT0lTGIR9fPkzsl6"),
    (72, "$2b$04$NfAJsf2HB58vcOEiQZnDj.AE4Kou6NH6LuTmBYGPyqZZ8yiNoXBA2"),
    (73, "$2b$04$DmCAdK1sB9IsS.iYbl0VzO5abWNnWj5dV2xuL20W6OgoMp15ejF32"),
    (100, "$2b$04$hcMpg8vqBoTI1aWVTrlx2e.MOirA1FFmEXD3gXOXAi/OjuFhvJW1m"),
];
/// Made by PHP 8.2 of 100 bytes of `0123456789…`.
const PHP_LONG: &str = "$2y$04$BhMzYgLE7a4j4pjXMPHj7euVPBXTM2.NIm.N57TC8.KlcRbBizm.m";
/// Made by PHP 8.2 of the first password.
const PHP: &str = "$2y$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK";

fn verify(text: &str, password: &str) -> Result<bool, UnsupportedHash> {
    Ok(ForeignHash::parse(text)?.verify(password.as_bytes()))
}

fn refusal(text: &str) -> Option<UnsupportedHash> {
    ForeignHash::parse(text).err()
}

fn is_out_of_bounds(text: &str) -> bool {
    matches!(refusal(text), Some(UnsupportedHash::OutOfBounds(_)))
}

/// So many bytes in Base64 without padding.
fn base64(bytes: usize) -> String {
    STANDARD_NO_PAD.encode(vec![7; bytes])
}

#[test]
fn hashes_of_each_maker_match_their_password_only() {
    for (maker, hashes) in MADE {
        for (hash, password) in hashes.iter().zip(PASSWORDS) {
            assert_eq!(verify(hash, password), Ok(true), "{maker}: {hash}");
            for wrong in ["", "correct horse battery stapl", "correct horse battery staple ", "passw\u{f6}rd"]
            {
                assert_eq!(verify(hash, wrong), Ok(false), "{maker}: {hash}");
            }
        }
        for (hash, other) in hashes.iter().zip(PASSWORDS.into_iter().rev()) {
            assert_eq!(verify(hash, other), Ok(false), "{maker}: {hash}");
        }
    }
    assert_eq!(verify(ARGON2_WIDE, PASSWORDS[0]), Ok(true));
    assert_eq!(verify(ARGON2_WIDE, PASSWORDS[1]), Ok(false));
}

#[test]
fn a_cut_hash_is_refused_or_matches_nothing() {
    for (maker, [hash, _]) in MADE {
        for end in 0..hash.len() {
            let cut = &hash[..end];
            let parsed = ForeignHash::parse(cut);
            // Only these formats leave the length of the output open.
            let is_open = hash.contains("$argon2") || hash.starts_with("$scrypt$");
            assert!(is_open || parsed.is_err(), "{maker}: {cut}");
            if let Ok(parsed) = parsed {
                assert!(parsed.output.len() >= 16, "{maker}: {cut}");
                let matches = parsed.verify(PASSWORDS[0].as_bytes());
                assert_eq!(matches, hash.starts_with("$scrypt$"), "{maker}: {cut}");
            }
        }
        for longer in [
            format!("{hash}A"),
            format!("{hash}="),
            format!("{hash}\n"),
            format!("{hash}$"),
            format!(" {hash}"),
        ] {
            assert_ne!(verify(&longer, PASSWORDS[0]), Ok(true), "{maker}: {longer}");
        }
    }
}

#[test]
fn an_altered_hash_is_refused_or_matches_nothing() {
    for (maker, [hash, _]) in MADE {
        for (position, byte) in hash.bytes().enumerate() {
            for other in
                [if byte == b'A' { b'9' } else { b'A' }, if byte == b'$' { b'1' } else { b'$' }, 0, 0xff]
            {
                let mut bytes = hash.as_bytes().to_vec();
                bytes[position] = other;
                let altered = String::from_utf8_lossy(&bytes);
                let is_match = verify(&altered, PASSWORDS[0]) == Ok(true);
                // The four bits past bcrypt's salt count for nothing.
                let is_bcrypt_padding = hash.contains("$2") && position + 32 == hash.len();
                assert!(!is_match || is_bcrypt_padding, "{maker}: {altered}");
            }
        }
    }
}

#[test]
fn what_is_not_supported_is_unknown() {
    for text in [
        "",
        "$",
        "$$$$",
        "password",
        "9cc2ae8a1ba7a93da39b46fc1019c481",
        "md5$salt$9cc2ae8a1ba7a93da39b46fc1019c481",
        "sha1$salt$9cc2ae8a1ba7a93da39b46fc1019c481",
        "{SSHA}AAAA",
        "$1$salt$hash",
        "$5$salt$hash",
        "$6$rounds=5000$salt$hash",
        "$7$salt",
        "$y$j9T$salt$hash",
        "$argon2$v=19$m=64,t=2,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$bcrypt-sha256$v=2,t=2b,r=12$n79VH.0Q2TMWmt3Oqt9uku$Kq4Noyk3094Y2QlB8NdRT8SvGiI4ft2",
        "pbkdf2:md5:1500$salt$9cc2ae8a1ba7a93da39b46fc1019c481",
        "PBKDF2_SHA256$1500$salt$AAAA",
        "$2$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
        "$2x$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
        "bcrypt$$2x$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
    ] {
        assert_eq!(refusal(text), Some(UnsupportedHash::UnknownFormat), "{text}");
    }
    let errors =
        [UnsupportedHash::UnknownFormat, UnsupportedHash::OutOfBounds("x"), UnsupportedHash::InvalidEncoding];
    let said = errors.map(|error| error.to_string());
    assert_eq!(said, ["unknown format", "parameters out of bounds: x", "not a valid encoding"]);
}

#[test]
fn what_is_not_written_as_its_format_writes_it_is_no_valid_encoding() {
    for text in [
        "$2b",
        "$2b$4$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
        "$2b$+4$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
        "$2b$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDL",
        "$2b$04$YOnCeXQ9b7Ns58omDVBx\u{e9}3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
        "bcrypt$2b$04$YOnCeXQ9b7Ns58omDVBxcu3sltJlTkQQXAxMnqi/jchrpDW7peCDK",
        "argon2",
        "pbkdf2:sha256$salt$9cc2ae8a1ba7a93da39b46fc1019c481",
        "scrypt:32768:8$salt$9cc2ae8a1ba7a93da39b46fc1019c481",
        "pbkdf2_sha256$1500$s lt$D3eiF9LmLhtsNjIVraC26CzmObnUf/IFOSaQ6KZLRfM=",
        "pbkdf2_sha256$01500$salt$D3eiF9LmLhtsNjIVraC26CzmObnUf/IFOSaQ6KZLRfM=",
        "pbkdf2_sha256$-1500$salt$D3eiF9LmLhtsNjIVraC26CzmObnUf/IFOSaQ6KZLRfM=",
        "pbkdf2_sha256$$salt$D3eiF9LmLhtsNjIVraC26CzmObnUf/IFOSaQ6KZLRfM=",
        "pbkdf2_sha256$1500$salt$D3eiF9LmLhtsNjIVraC26CzmObnUf/IFOSaQ6KZLRfM",
        "pbkdf2:sha1:1500$salt$0FEEDA82699B06D06F82DB3973DA646FD8527744",
        "$pbkdf2-sha256$l=32,i=1500$BwECAwQFBgcICQoLDA0OHA$gF1zc/UWQnTew+9hFIaM3QTALTbtgyXtHc7ys0JOmlU",
        "$pbkdf2-sha256$i=1500,l=31$BwECAwQFBgcICQoLDA0OHA$gF1zc/UWQnTew+9hFIaM3QTALTbtgyXtHc7ys0JOmlU",
        "$pbkdf2-sha256$i=1500,l=32,x=1$BwECAwQFBgcICQoLDA0OHA$gF1zc/UWQnTew+9hFIaM3QTALTbtgyXtHc7ys0JOmlU",
        "$argon2id$v=18$m=64,t=2,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$argon2id$v=19$t=2,m=64,p=1$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
        "$argon2id$v=19$m=64,t=2,p=1,keyid=A$AAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert_eq!(refusal(text), Some(UnsupportedHash::InvalidEncoding), "{text}");
    }
}

#[test]
fn the_phc_form_of_pbkdf2_may_leave_its_length_out() {
    let without = "$pbkdf2-sha256$i=1500$BwECAwQFBgcICQoLDA0OHA$gF1zc/UWQnTew+9hFIaM3QTALTbtgyXtHc7ys0JOmlU";
    assert_eq!(verify(without, PASSWORDS[0]), Ok(true));
}

#[test]
fn bcrypt_looks_at_72_bytes() {
    let digits = "0123456789".repeat(20);
    for (bytes, hash) in BCRYPT_LONG {
        assert_eq!(verify(hash, &digits[..bytes]), Ok(true), "{bytes}");
        assert_eq!(verify(hash, &digits[..72]), Ok(bytes >= 72), "{bytes}");
        assert_eq!(verify(hash, &digits), Ok(bytes >= 72), "{bytes}");
        assert_eq!(verify(hash, &digits[..71]), Ok(bytes == 71), "{bytes}");
    }
    assert_eq!(verify(PHP_LONG, &digits[..100]), Ok(true));
    assert_eq!(verify(PHP_LONG, &digits[..72]), Ok(true));
    assert_eq!(verify(PHP_LONG, &digits[..71]), Ok(false));
}

#[test]
fn a_password_with_a_nul_matches_no_bcrypt_hash() {
    assert_eq!(verify(PHP, PASSWORDS[0]), Ok(true));
    assert_eq!(verify(PHP, "correct horse battery staple\0"), Ok(false));
    assert_eq!(verify(PHP, "correct horse battery staple\0more"), Ok(false));
    // bcrypt repeats the password and its NUL, so to it this is the same once more.
    assert_eq!(verify(PHP, "correct horse battery staple\0correct horse battery staple"), Ok(false));
}

#[test]
fn chance_past_the_end_of_a_bcrypt_salt_counts_for_nothing() {
    // `u` and `v` differ in the last bit of six, of which the first two count.
    let padded = PHP.replace("Bxcu3s", "Bxcv3s");
    assert_ne!(padded, PHP);
    assert_eq!(verify(&padded, PASSWORDS[0]), Ok(true));
}

#[test]
fn the_cost_of_bcrypt_is_bounded() {
    let cost = |cost: u32| PHP.replace("$04$", &format!("${cost:02}$"));
    assert!(refusal(&cost(4)).is_none() && refusal(&cost(15)).is_none());
    for beyond in [0, 3, 16, 31, 99] {
        assert!(is_out_of_bounds(&cost(beyond)), "{beyond}");
    }
}

#[test]
fn the_iterations_of_pbkdf2_are_bounded_in_every_format() {
    let (long, hex) = (base64(32), "07".repeat(32));
    for with in [
        &|i: u64| format!("$pbkdf2-sha256$i={i},l=32$AAAA${long}") as String,
        &|i| format!("$pbkdf2-sha256${i}$AAAA${long}"),
        &|i| format!("pbkdf2_sha256${i}$salt${long}="),
        &|i| format!("pbkdf2:sha256:{i}$salt${hex}"),
    ] as [&dyn Fn(u64) -> String; 4]
    {
        assert!(refusal(&with(1_000)).is_none() && refusal(&with(2_000_000)).is_none(), "{}", with(0));
        for beyond in [0, 1, 999, 2_000_001, u32::MAX.into(), u64::MAX] {
            assert!(is_out_of_bounds(&with(beyond)), "{}", with(beyond));
        }
    }
    let blocks = |i: u32, bytes: usize| format!("$pbkdf2-sha256$i={i},l={bytes}$AAAA${}", base64(bytes));
    assert!(refusal(&blocks(2_000_000, 64)).is_none() && is_out_of_bounds(&blocks(2_000_000, 65)));
    assert!(refusal(&blocks(1_000_000, 128)).is_none() && is_out_of_bounds(&blocks(1_000_001, 128)));
}

#[test]
fn the_time_and_memory_of_scrypt_are_bounded_in_every_format() {
    let (phc, django, hex) = (base64(32), STANDARD.encode([7; 64]), "07".repeat(64));
    for with in [
        &|ln: u32, r: u32, p: u32| format!("$scrypt$ln={ln},r={r},p={p}$AAAA${phc}") as String,
        &|ln, r, p| format!("scrypt${}$salt${r}${p}${django}", 1_u64 << ln),
        &|ln, r, p| format!("scrypt:{}:{r}:{p}$salt${hex}", 1_u64 << ln),
    ] as [&dyn Fn(u32, u32, u32) -> String; 3]
    {
        for (ln, r, p) in [(1, 1, 1), (18, 8, 2), (21, 1, 2), (15, 64, 2), (14, 8, 16), (10, 64, 16)] {
            assert_eq!(refusal(&with(ln, r, p)), None, "{ln} {r} {p}");
        }
        for (ln, r, p) in [
            (0, 8, 1),
            (10, 0, 1),
            (10, 8, 0),
            (19, 8, 1),
            (18, 9, 1),
            (22, 1, 1),
            (16, 64, 1),
            (10, 65, 1),
            (10, 8, 17),
            (18, 8, 3),
            (40, 8, 1),
            (63, 8, 1),
            (10, u32::MAX, 1),
            (10, 8, u32::MAX),
        ] {
            assert!(is_out_of_bounds(&with(ln, r, p)), "{ln} {r} {p}");
        }
    }
    for ln in [64, 255, 256, u32::MAX] {
        assert!(is_out_of_bounds(&format!("$scrypt$ln={ln},r=8,p=1$AAAA${phc}")), "{ln}");
    }
    for n in ["0", "1", "3", "16383", "16385", "4294967296"] {
        assert!(is_out_of_bounds(&format!("scrypt${n}$salt$8$1${django}")), "{n}");
    }
}

#[test]
fn the_time_and_memory_of_argon2_are_bounded() {
    let (salt, output) = (base64(16), base64(32));
    let with = |m: u32, t: u32, p: u32| format!("$argon2i$v=19$m={m},t={t},p={p}${salt}${output}");
    for (m, t, p) in [(8, 1, 1), (262_144, 16, 1), (64, 100, 1), (512, 1, 64)] {
        assert_eq!(refusal(&with(m, t, p)), None, "{m} {t} {p}");
    }
    for (m, t, p) in [
        (7, 1, 1),
        (262_145, 1, 1),
        (262_144, 17, 1),
        (64, 0, 1),
        (64, 101, 1),
        (64, 1, 0),
        (520, 1, 65),
        (64, 1, 9),
        (u32::MAX, 1, 1),
    ] {
        assert!(is_out_of_bounds(&with(m, t, p)), "{m} {t} {p}");
    }
}

#[test]
fn salts_outputs_and_texts_have_lengths_that_make_sense() {
    let argon2 = |salt: usize, output: usize| {
        format!("$argon2id$v=19$m=64,t=1,p=1${}${}", base64(salt), base64(output))
    };
    let pbkdf2 = |salt: usize, output: usize| {
        format!("$pbkdf2-sha256$i=1000,l={output}${}${}", base64(salt), base64(output))
    };
    let scrypt =
        |salt: usize, output: usize| format!("$scrypt$ln=4,r=8,p=1${}${}", base64(salt), base64(output));
    for (least, with) in [(8, &argon2 as &dyn Fn(usize, usize) -> String), (1, &pbkdf2), (1, &scrypt)] {
        for (salt, output) in [(least, 16), (128, 128)] {
            assert_eq!(refusal(&with(salt, output)), None, "{}", with(salt, output));
        }
        for (salt, output) in [(0, 32), (least - 1, 32), (129, 32), (16, 15), (16, 129), (16, 0)] {
            assert!(is_out_of_bounds(&with(salt, output)), "{}", with(salt, output));
        }
    }
    let django = |salt: usize| format!("pbkdf2_sha256$1500${}${}=", "s".repeat(salt), base64(32));
    assert!(refusal(&django(1)).is_none() && refusal(&django(128)).is_none());
    assert!(is_out_of_bounds(&django(0)) && is_out_of_bounds(&django(129)));
    assert!(is_out_of_bounds(&"$".repeat(1025)) && !is_out_of_bounds(&"$".repeat(1024)));
    assert!(is_out_of_bounds(&PHP.repeat(100_000)));
}

/// Any bytes, then bytes that these formats are made of, by a generator that is the same each time.
#[test]
fn nothing_that_is_read_panics() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    let pieces = [
        "$",
        "$",
        "$",
        "argon2id",
        "argon2",
        "2b",
        "bcrypt",
        "pbkdf2_sha256",
        "pbkdf2",
        "scrypt",
        ":",
        "sha256",
        "m=",
        ",t=",
        ",p=",
        "i=",
        "ln=",
        "v=19",
        "4294967296",
        "16",
        "0",
        "1500",
        "salt",
        "AAAA",
        "=",
        "\u{e9}",
        ".",
        "+",
    ];
    for _ in 0..100 {
        let bytes: Vec<u8> = (0..next(200)).map(|_| u8::try_from(next(256)).unwrap()).collect();
        assert!(ForeignHash::parse(&String::from_utf8_lossy(&bytes)).is_err(), "{bytes:?}");
        for _ in 0..100 {
            let text: String = (0..next(16)).map(|_| pieces[next(pieces.len())]).collect();
            assert!(ForeignHash::parse(&text).is_err(), "{text}");
        }
    }
}

#[test]
fn a_formatted_hash_shows_nothing() {
    let hash = ForeignHash::parse(MADE[0].1[0]).unwrap();
    assert_eq!(format!("{hash:?}"), "ForeignHash([redacted])");
}

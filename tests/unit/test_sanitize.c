/* External text is made safe for a terminal. */
#include "unit.h"

#include <string.h>

#include "lib/sanitize.h"

static void assert_becomes(const char *text, const char *expected)
{
    char out[256];
    assert_int_equal(sanitize_copy(out, sizeof(out), text, strlen(text)), strlen(expected));
    assert_string_equal(out, expected);
}

TEST(printable_text_is_unchanged)
{
    assert_becomes("", "");
    assert_becomes("upstream main: 503 \"busy\" C:\\x ~", "upstream main: 503 \"busy\" C:\\x ~");
    assert_becomes("Gr\303\274\303\237e \344\275\240\345\245\275 \360\237\216\254 \302\240",
                   "Gr\303\274\303\237e \344\275\240\345\245\275 \360\237\216\254 \302\240");
}

TEST(control_characters_are_escaped)
{
    assert_becomes("a\nb\r\tc", "a\\nb\\r\\tc");
    assert_becomes("\033[2J\007\177", "\\x1b[2J\\x07\\x7f");
    assert_becomes("\302\2332J\302\205", "\\xc2\\x9b2J\\xc2\\x85"); /* C1: CSI, NEL */
}

TEST(invisible_and_bidirectional_characters_are_escaped)
{
    assert_becomes("\342\200\256gpj.exe", "\\xe2\\x80\\xaegpj.exe"); /* written from right to left */
    assert_becomes("\342\200\250", "\\xe2\\x80\\xa8");               /* the end of a line */
    assert_becomes("\342\201\246x", "\\xe2\\x81\\xa6x");
    assert_becomes("\342\200\234x\342\200\235", "\342\200\234x\342\200\235"); /* but not quotes */
}

TEST(invalid_utf8_is_escaped_byte_by_byte)
{
    assert_becomes("\377", "\\xff");
    assert_becomes("\303", "\\xc3");
    assert_becomes("\300\212x", "\\xc0\\x8ax");        /* a line break, overlong encoding */
    assert_becomes("\355\240\200", "\\xed\\xa0\\x80"); /* lone surrogate */
    assert_becomes("\364\220\200\200", "\\xf4\\x90\\x80\\x80");
}

TEST(nul_byte_is_escaped_like_any_other)
{
    char out[16];
    assert_int_equal(sanitize_copy(out, sizeof(out), "a\0b", 3), 6);
    assert_string_equal(out, "a\\x00b");
}

TEST(characters_and_escapes_are_never_split)
{
    char out[6];
    assert_int_equal(sanitize_copy(out, 6, "abcd\303\274", 6), 4);
    assert_int_equal(sanitize_copy(out, 6, "ab\033", 3), 2);
    assert_string_equal(out, "ab");
    assert_int_equal(sanitize_copy(out, 6, "abcdefg", 7), 5);
    assert_string_equal(out, "abcde");
}

TEST(truncated_character_is_invalid)
{
    const char *text = "\344\275\240";
    assert_int_equal(utf8_len(text, text + 3), 3);
    assert_int_equal(utf8_len(text, text + 2), 0);
    assert_int_equal(utf8_len(text, text), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(printable_text_is_unchanged),
        cmocka_unit_test(control_characters_are_escaped),
        cmocka_unit_test(invisible_and_bidirectional_characters_are_escaped),
        cmocka_unit_test(invalid_utf8_is_escaped_byte_by_byte),
        cmocka_unit_test(nul_byte_is_escaped_like_any_other),
        cmocka_unit_test(characters_and_escapes_are_never_split),
        cmocka_unit_test(truncated_character_is_invalid),
    };
    return cmocka_run_group_tests_name("plain", tests, NULL, NULL);
}

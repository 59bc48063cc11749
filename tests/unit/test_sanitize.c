/* Text from outside that is made fit for a terminal. */
#include "unit.h"

#include <string.h>

#include "lib/sanitize.h"

static void assert_becomes(const char *text, const char *expected)
{
    char out[256];
    assert_int_equal(sanitize_copy(out, sizeof(out), text, strlen(text)), strlen(expected));
    assert_string_equal(out, expected);
}

TEST(what_can_be_seen_stays_as_it_is)
{
    assert_becomes("", "");
    assert_becomes("upstream main: 503 \"busy\" C:\\x ~", "upstream main: 503 \"busy\" C:\\x ~");
    assert_becomes("Gr\303\274\303\237e \344\275\240\345\245\275 \360\237\216\254 \302\240",
                   "Gr\303\274\303\237e \344\275\240\345\245\275 \360\237\216\254 \302\240");
}

TEST(what_a_terminal_obeys_becomes_an_escape)
{
    assert_becomes("a\nb\r\tc", "a\\nb\\r\\tc");
    assert_becomes("\033[2J\007\177", "\\x1b[2J\\x07\\x7f");
    assert_becomes("\302\2332J\302\205", "\\xc2\\x9b2J\\xc2\\x85"); /* C1: CSI, NEL */
}

TEST(what_makes_text_look_like_other_text_becomes_an_escape)
{
    assert_becomes("\342\200\256gpj.exe", "\\xe2\\x80\\xaegpj.exe"); /* written from right to left */
    assert_becomes("\342\200\250", "\\xe2\\x80\\xa8");               /* the end of a line */
    assert_becomes("\342\201\246x", "\\xe2\\x81\\xa6x");
    assert_becomes("\342\200\234x\342\200\235", "\342\200\234x\342\200\235"); /* but not quotes */
}

TEST(what_is_not_utf8_becomes_an_escape_byte_by_byte)
{
    assert_becomes("\377", "\\xff");
    assert_becomes("\303", "\\xc3");
    assert_becomes("\300\212x", "\\xc0\\x8ax");        /* a line break, the long way */
    assert_becomes("\355\240\200", "\\xed\\xa0\\x80"); /* half of a pair */
    assert_becomes("\364\220\200\200", "\\xf4\\x90\\x80\\x80");
}

TEST(a_zero_byte_is_a_byte_like_any_other)
{
    char out[16];
    assert_int_equal(sanitize_copy(out, sizeof(out), "a\0b", 3), 6);
    assert_string_equal(out, "a\\x00b");
}

TEST(no_character_and_no_escape_is_cut_in_two)
{
    char out[6];
    assert_int_equal(sanitize_copy(out, 6, "abcd\303\274", 6), 4);
    assert_int_equal(sanitize_copy(out, 6, "ab\033", 3), 2);
    assert_string_equal(out, "ab");
    assert_int_equal(sanitize_copy(out, 6, "abcdefg", 7), 5);
    assert_string_equal(out, "abcde");
}

TEST(a_character_that_the_text_ends_within_is_none)
{
    const char *text = "\344\275\240";
    assert_int_equal(utf8_len(text, text + 3), 3);
    assert_int_equal(utf8_len(text, text + 2), 0);
    assert_int_equal(utf8_len(text, text), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_can_be_seen_stays_as_it_is),
        cmocka_unit_test(what_a_terminal_obeys_becomes_an_escape),
        cmocka_unit_test(what_makes_text_look_like_other_text_becomes_an_escape),
        cmocka_unit_test(what_is_not_utf8_becomes_an_escape_byte_by_byte),
        cmocka_unit_test(a_zero_byte_is_a_byte_like_any_other),
        cmocka_unit_test(no_character_and_no_escape_is_cut_in_two),
        cmocka_unit_test(a_character_that_the_text_ends_within_is_none),
    };
    return cmocka_run_group_tests_name("plain", tests, NULL, NULL);
}

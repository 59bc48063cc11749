/* Facts in sections, as JSON and as plain text. */
#include "unit.h"

#include "server/listing.h"

static void write(struct buf *out, bool text)
{
    struct listing listing;
    buf_init(out, 4096);
    listing_open(&listing, out, text);
    listing_section(&listing, "now", false);
    listing_number(&listing, "waiters", 3);
    listing_share(&listing, "hit_ratio", 0.25);
    listing_section(&listing, "keys", true);
    listing_row(&listing);
    listing_text(&listing, "key", "a \"key\"\n\xff…");
    listing_number(&listing, "refusals", 1);
    listing_row(&listing);
    listing_text(&listing, "key", "b");
    listing_number(&listing, "refusals", 22);
    listing_section(&listing, "troubles", true);
    listing_close(&listing);
}

TEST(programs_get_json)
{
    struct buf out;
    write(&out, false);
    assert_string_equal(out.data, "{\"now\":{\"waiters\":3,\"hit_ratio\":0.250},"
                                  "\"keys\":[{\"key\":\"a \\\"key\\\"??…\",\"refusals\":1},"
                                  "{\"key\":\"b\",\"refusals\":22}],"
                                  "\"troubles\":[]}\n");
    buf_done(&out);
}

TEST(people_get_columns)
{
    struct buf out;
    write(&out, true);
    assert_string_equal(out.data, "now\n"
                                  "  waiters   hit_ratio\n"
                                  "  3         0.250\n"
                                  "\n"
                                  "keys\n"
                                  "  key                   refusals\n"
                                  "  a \"key\"??…            1\n"
                                  "  b                     22\n"
                                  "\n"
                                  "troubles\n"
                                  "  none\n"
                                  "\n");
    buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(programs_get_json),
                                       cmocka_unit_test(people_get_columns)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

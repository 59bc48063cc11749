/* One small table, every type in it, and the message of each error. */
#include "unit.h"

#include <stdlib.h>
#include <string.h>

#include "config/schema.h"
#include "given.h"

struct door {
    char *name;
    int64_t width;
};

struct house {
    char *title;
    char *owner;
    char *plan;
    int64_t age_ms;
    int64_t volume;
    int64_t floors;
    int colour;
    struct json_path at;
    struct list tags;
    struct secret alarm;
    struct list keys;
    struct list places;
    struct list values;
    struct door front;
    struct list doors;
    struct list named_doors;
    struct list notes;
};

static const char *refuse_shouting(const void *value)
{
    return strchr(*(char *const *)value, '!') != NULL ? "must not shout" : NULL;
}

static const char *refuse_wide(const void *value)
{
    return ((const struct door *)value)->width > 400 ? "must not be a gate" : NULL;
}

static const struct field door_fields[] = {
    FIELD("width", S_INT, struct door, width, "80", "in cm", .min = 1, .max = 500),
};
static const struct table door_table = TABLE(struct door, door_fields);

#define HOUSE struct house
static const struct field house_fields[] = {
    FIELD("title", S_STRING, HOUSE, title, REQUIRED, "what it is called", .min = 2, .max = 8),
    FIELD("owner", S_ACCOUNT, HOUSE, owner, "null", "who has it", .min = 2, .max = 8),
    FIELD("plan", S_PATH, HOUSE, plan, "null", "a file", ),
    FIELD("age", S_DURATION, HOUSE, age_ms, "\"1h\"", "since it was built", .min = 1000, .max = 86400000),
    FIELD("volume", S_SIZE, HOUSE, volume, "\"1KiB\"", "how much fits in", .min = 1024, .max = 1048576),
    FIELD("floors", S_INT, HOUSE, floors, "1", "levels", .max = 9),
    FIELD("colour", S_ENUM, HOUSE, colour, "\"red\"", "of the walls", .words = "red|green"),
    FIELD("at", S_POINTER, HOUSE, at, "null", "where it is", ),
    FIELD("tags", S_STRINGS, HOUSE, tags, "[]", "words", .max = 2, .refuse = refuse_shouting),
    FIELD("alarm", S_SECRET, HOUSE, alarm, "null", "a file with a code", .min = 12),
    FIELD("keys", S_SECRETS, HOUSE, keys, "[]", "files with keys", .max = 2),
    FIELD("places", S_POINTERS, HOUSE, places, "[]", "where else", ),
    FIELD("values", S_SCALARS, HOUSE, values, "[]", "anything", ),
    FIELD("front", S_OBJECT, HOUSE, front, "{}", "the main door", .table = &door_table),
    FIELD("doors", S_LIST, HOUSE, doors, "[]", "further doors", .table = &door_table, .refuse = refuse_wide),
    FIELD("named_doors", S_MAP, HOUSE, named_doors, "{}", "doors by name", .table = &door_table),
    FIELD("notes", S_MAP_TEXT, HOUSE, notes, "{}", "text by name", .max = 1),
};
static const struct table house_table = TABLE(HOUSE, house_fields);

static int read_house(const char *text, struct house *house, char **ret_error)
{
    const struct given given[] = {{"/etc/x/code", "0123456789abcdef\n", 0}, {"/etc/x/key", "12345678", 0}};
    struct file file = {.path = (char *)"/etc/x/house.json", .data = (char *)text, .len = strlen(text)};
    struct schema_source source = {.file = &file, .files = given_files(given, NELEMS(given))};
    memset(house, 0, sizeof(*house));
    int result = schema_read(&house_table, &source, house, ret_error);
    files_free(source.files);
    return result;
}

static void assert_error(const char *text, const char *expected)
{
    struct house house;
    char *error = NULL;
    assert_int_equal(read_house(text, &house, &error), -1);
    assert_string_equal(error, expected);
    free(error);
    schema_done(&house_table, &house);
}

TEST(absent_key_has_its_default)
{
    struct house house;
    char *error = NULL;
    assert_int_equal(read_house("{\"title\":\"home\"}", &house, &error), 0);
    assert_null(error);
    assert_string_equal(house.title, "home");
    assert_null(house.plan);
    assert_int_equal(house.age_ms, 3600000);
    assert_int_equal(house.volume, 1024);
    assert_int_equal(house.floors, 1);
    assert_int_equal(house.colour, 0);
    assert_int_equal(house.at.n_segments, 0);
    assert_int_equal(house.front.width, 80);
    assert_int_equal(house.doors.n, 0);
    schema_done(&house_table, &house);
}

static const char whole_house[] =
    "{ // a comment\n"
    "\"title\": \"home\", \"owner\": 33, \"plan\": \"plans/a\", \"age\": \"90s\", \"volume\": \"2KiB\", "
    "\"floors\": 9,\n"
    "\"colour\": \"green\", \"at\": \"/a/*/b\", \"tags\": [\"x\", \"yy\"], \"alarm\": \"code\", \"keys\": "
    "[\"/etc/x/key\", \"key\"],\n"
    "\"places\": \"/one\", \"values\": [\"a\", 1, true, null], \"front\": {\"width\": 100},\n"
    "\"doors\": [{\"width\": 1}, {}], \"named_doors\": {\"back\": {\"width\": 70}, \"side-1\": {}},\n"
    "\"notes\": {\"n\": \"text\"} }";

TEST(every_type_is_read_into_its_place)
{
    struct house house;
    char *error = NULL;
    assert_int_equal(read_house(whole_house, &house, &error), 0);
    assert_string_equal(house.owner, "33");
    assert_string_equal(house.plan, "/etc/x/plans/a");
    assert_int_equal(house.age_ms, 90000);
    assert_int_equal(house.volume, 2048);
    assert_int_equal(house.colour, 1);
    assert_int_equal(house.at.n_segments, 3);
    assert_string_equal(((char **)house.tags.items)[1], "yy");
    assert_string_equal(house.alarm.path, "/etc/x/code");
    assert_string_equal(house.alarm.text, "0123456789abcdef");
    assert_int_equal(house.keys.n, 2);
    assert_string_equal(((struct secret *)house.keys.items)[1].path, "/etc/x/key");
    assert_string_equal(((struct secret *)house.keys.items)[1].text, "12345678");
    assert_int_equal(house.places.n, 1);
    assert_int_equal(house.values.n, 4);
    assert_int_equal(house.front.width, 100);
    assert_int_equal(((struct door *)house.doors.items)[1].width, 80);
    assert_string_equal(((struct door *)house.named_doors.items)[0].name, "back");
    assert_int_equal(((struct door *)house.named_doors.items)[1].width, 80);
    assert_string_equal(((struct pair *)house.notes.items)[0].value, "text");
    schema_done(&house_table, &house);
    schema_done(&house_table, &house);
}

TEST(printed_values_round_trip)
{
    struct house house;
    char *error = NULL;
    struct buf first, second;
    buf_init(&first, 65536);
    buf_init(&second, 65536);
    assert_int_equal(read_house(whole_house, &house, &error), 0);
    schema_print(&house_table, &house, &first);
    schema_done(&house_table, &house);
    assert_int_equal(read_house(first.data, &house, &error), 0);
    schema_print(&house_table, &house, &second);
    schema_done(&house_table, &house);
    assert_string_equal(first.data, second.data);
    buf_done(&first);
    buf_done(&second);
}

TEST(account_is_a_name_or_a_number_quoted_or_not)
{
    static const struct {
        const char *text, *owner, *printed;
    } accounts[] = {{"\"www\"", "www", "\"owner\": \"www\""},
                    {"0", "0", "\"owner\": 0,"},
                    {"4294967294", "4294967294", "\"owner\": 4294967294,"},
                    {"\"33\"", "33", "\"owner\": 33,"},
                    {"\"33x\"", "33x", "\"owner\": \"33x\""}};
    for (size_t i = 0; i < NELEMS(accounts); i++) {
        struct house house;
        struct buf out;
        char *error = NULL, *text = xasprintf("{\"title\":\"home\",\"owner\":%s}", accounts[i].text);
        assert_int_equal(read_house(text, &house, &error), 0);
        assert_string_equal(house.owner, accounts[i].owner);
        buf_init(&out, 65536);
        schema_print(&house_table, &house, &out);
        assert_non_null(strstr(out.data, accounts[i].printed));
        buf_done(&out);
        schema_done(&house_table, &house);
        free(text);
    }
}

TEST(every_error_has_file_line_pointer_and_reason)
{
#define AT1 "/etc/x/house.json:1: "
    static const struct {
        const char *text;
        const char *error;
    } mistakes[] = {
        {"[]", AT1 "must be an object"},
        {"{}", AT1 "the key \"title\" is missing"},
        {"{\"title\":5}", AT1 "/title: must be a string, not int"},
        {"{\"title\":null}", AT1 "/title: must be a string, not null"},
        {"{\"title\":\"x\"}", AT1 "/title: must have 2 to 8 characters"},
        {"{\"title\":\"123456789\"}", AT1 "/title: must have 2 to 8 characters"},
        {"{\"title\":\"a\\nb\"}", AT1 "/title: must not contain control characters"},
        {"{\"title\":\"a\\u0000b\"}", NULL},
        {"{\"titel\":\"home\"}", AT1 "/titel: unknown key; did you mean \"title\"?"},
        {"{\"zzzzzzzzzzzzzzz\":1}", AT1 "/zzzzzzzzzzzzzzz: unknown key"},
        {"{\"title\":\"home\",\"owner\":true}", AT1 "/owner: must be a name or a number"},
        {"{\"title\":\"home\",\"owner\":-1}", AT1 "/owner: must be a name, or a number from 0 to 4294967294"},
        {"{\"title\":\"home\",\"owner\":\"4294967295\"}",
         AT1 "/owner: must be a name, or a number from 0 to 4294967294"},
        {"{\"title\":\"home\",\"owner\":\"x\"}", AT1 "/owner: must have 2 to 8 characters"},
        {"{\"title\":\"home\",\"plan\":\"\"}", AT1 "/plan: must be the name of a file"},
        {"{\"title\":\"home\",\"age\":\"10\"}",
         AT1 "/age: must be a duration: a number and ms, s, m, h or d, such as \"250ms\""},
        {"{\"title\":\"home\",\"age\":10}",
         AT1 "/age: must be a duration: a number and ms, s, m, h or d, such as \"250ms\""},
        {"{\"title\":\"home\",\"age\":\"999ms\"}", AT1 "/age: must be from \"1s\" to \"1d\""},
        {"{\"title\":\"home\",\"age\":\"25h\"}", AT1 "/age: must be from \"1s\" to \"1d\""},
        {"{\"title\":\"home\",\"volume\":\"1B\"}", AT1 "/volume: must be from \"1KiB\" to \"1MiB\""},
        {"{\"title\":\"home\",\"volume\":true}",
         AT1 "/volume: must be a size: a number and B, KiB, MiB or GiB, such as \"64MiB\""},
        {"{\"title\":\"home\",\"floors\":1.5}", AT1 "/floors: must be a whole number"},
        {"{\"title\":\"home\",\"floors\":\"1\"}", AT1 "/floors: must be a whole number"},
        {"{\"title\":\"home\",\"floors\":-1}", AT1 "/floors: must be from 0 to 9"},
        {"{\"title\":\"home\",\"floors\":18446744073709551615}", AT1 "/floors: must be from 0 to 9"},
        {"{\"title\":\"home\",\"colour\":\"blue\"}", AT1 "/colour: must be one of \"red\", \"green\""},
        {"{\"title\":\"home\",\"colour\":\"red|green\"}", AT1 "/colour: must be one of \"red\", \"green\""},
        {"{\"title\":\"home\",\"colour\":0}", AT1 "/colour: must be one of \"red\", \"green\""},
        {"{\"title\":\"home\",\"at\":\"a/b\"}",
         AT1 "/at: \"a/b\" is not a JSON pointer of 1 to 16 segments, such as \"/data/status\""},
        {"{\"title\":\"home\",\"tags\":\"x\"}", AT1 "/tags: must be an array"},
        {"{\"title\":\"home\",\"tags\":[\"ok\",\"no!\"]}", AT1 "/tags/1: must not shout"},
        {"{\"title\":\"home\",\"tags\":[\"a\",\"b\",\"c\"]}", AT1 "/tags: must have 0 to 2 members"},
        {"{\"title\":\"home\",\"alarm\":\"\"}", AT1 "/alarm: must be the name of a file"},
        {"{\"title\":\"home\",\"alarm\":\"nowhere\"}",
         AT1 "/alarm: \"/etc/x/nowhere\" was not passed to this worker"},
        {"{\"title\":\"home\",\"alarm\":\"key\"}",
         AT1 "/alarm: \"/etc/x/key\" must contain at least 12 characters"},
        {"{\"title\":\"home\",\"keys\":[\"key\",\"/key\"]}",
         AT1 "/keys/1: \"/key\" was not passed to this worker"},
        {"{\"title\":\"home\",\"keys\":[\"key\",\"key\",\"key\"]}", AT1 "/keys: must have 0 to 2 members"},
        {"{\"title\":\"home\",\"doors\":[{},{\"width\":401}]}", AT1 "/doors/1: must not be a gate"},
        {"{\"title\":\"home\",\"notes\":{\"a\":\"\",\"b\":\"\"}}", AT1 "/notes: must have 0 to 1 members"},
        {"{\"title\":\"home\",\"tags\":[null]}", AT1 "/tags/0: must be a string, not null"},
        {"{\"title\":\"home\",\"places\":[\"/a\",5]}", AT1 "/places/1: must be a string, not int"},
        {"{\"title\":\"home\",\"values\":[[]]}",
         AT1 "/values/0: must be a string, a whole number, true, false or null"},
        {"{\"title\":\"home\",\"values\":[1.5]}",
         AT1 "/values/0: must be a string, a whole number, true, false or null"},
        {"{\"title\":\"home\",\"front\":[]}", AT1 "/front: must be an object"},
        {"{\"title\":\"home\",\"front\":{\"width\":0}}", AT1 "/front/width: must be from 1 to 500"},
        {"{\"title\":\"home\",\"doors\":[{},{\"widht\":5}]}",
         AT1 "/doors/1/widht: unknown key; did you mean \"width\"?"},
        {"{\"title\":\"home\",\"doors\":[5]}", AT1 "/doors/0: must be an object"},
        {"{\"title\":\"home\",\"named_doors\":[]}", AT1 "/named_doors: must be an object"},
        {"{\"title\":\"home\",\"named_doors\":{\"a b\":{}}}",
         AT1 "/named_doors/a b: a name must have 1 to 64 letters, digits, '_' and '-'"},
        {"{\"title\":\"home\",\"named_doors\":{\"\":{}}}",
         AT1 "/named_doors/: a name must have 1 to 64 letters, digits, '_' and '-'"},
        {"{\"title\":\"home\",\"named_doors\":{\"a\":{},\"b\":5}}", AT1 "/named_doors/b: must be an object"},
        {"{\"title\":\"home\",\"notes\":{\"c\":5}}", AT1 "/notes/c: must be a string, not int"},
        {"{\n\"title\":\"home\",\n\"floors\":\n\n77}", "/etc/x/house.json:5: /floors: must be from 0 to 9"},
        {"{\n\"title\":\"home\",\n\"title\":\"house\"}", "/etc/x/house.json:3: a duplicate key"},
        {"{\n\"title\":\"home\",\n}", NULL},
        {"", NULL},
        {"null", NULL},
    };
    for (size_t i = 0; i < NELEMS(mistakes); i++) {
        struct house house;
        char *error = NULL;
        assert_int_equal(read_house(mistakes[i].text, &house, &error), -1);
        assert_non_null(error);
        if (mistakes[i].error != NULL)
            assert_string_equal(error, mistakes[i].error);
        assert_memory_equal(error, "/etc/x/house.json:", 18);
        assert_null(strstr(error, "(null)"));
        free(error);
        schema_done(&house_table, &house);
    }
}

/* `before`, n times `piece`, `after`. */
static char *repeated(const char *before, const char *piece, size_t n, const char *after)
{
    struct buf b;
    buf_init(&b, 1 << 20);
    buf_puts(&b, before);
    for (size_t i = 0; i < n; i++)
        buf_puts(&b, piece);
    buf_puts(&b, after);
    return b.data;
}

TEST(absurd_sizes_are_refused_with_a_reason)
{
    char *text = repeated("{\"title\":\"home\",\"values\":[\"x\"", ",\"x\"", 4096, "]}");
    assert_error(text, "/etc/x/house.json:1: /values: must have 0 to 4096 members");
    free(text);
    text = repeated("{\"title\":\"", "x", 5000, "\"}");
    assert_error(text, "/etc/x/house.json:1: /title: must not be longer than 4096 characters");
    free(text);
    text = repeated("{\"title\":", "[", 50, "");
    struct house house;
    char *error = NULL;
    assert_int_equal(read_house(text, &house, &error), -1);
    free(error);
    free(text);
    text = repeated("{\"", "k", 5000, "\":1}"); /* longer than the place for a pointer */
    assert_int_equal(read_house(text, &house, &error), -1);
    assert_true(strlen(error) < 3000);
    free(error);
    free(text);
}

TEST(custom_message_has_the_same_format)
{
    static const char text[] = "{\n\"a\": {\n\"b\": 1}}";
    const struct file file = {.path = (char *)"f.json", .data = (char *)text, .len = strlen(text)};
    const struct schema_source source = {.file = &file};
    char *error = schema_error(&source, "/%s/b: is %d too many", "a", 1);
    assert_string_equal(error, "f.json:3: /a/b: is 1 too many");
    free(error);
}

TEST(relative_path_beside_a_file_without_a_directory_is_unchanged)
{
    static const char text[] = "{\"title\":\"home\",\"plan\":\"p\"}";
    const struct file file = {.path = (char *)"house.json", .data = (char *)text, .len = strlen(text)};
    const struct schema_source source = {.file = &file};
    struct house house = {0};
    char *error = NULL;
    assert_int_equal(schema_read(&house_table, &source, &house, &error), 0);
    assert_string_equal(house.plan, "p");
    schema_done(&house_table, &house);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(absent_key_has_its_default),
        cmocka_unit_test(every_type_is_read_into_its_place),
        cmocka_unit_test(printed_values_round_trip),
        cmocka_unit_test(account_is_a_name_or_a_number_quoted_or_not),
        cmocka_unit_test(every_error_has_file_line_pointer_and_reason),
        cmocka_unit_test(absurd_sizes_are_refused_with_a_reason),
        cmocka_unit_test(custom_message_has_the_same_format),
        cmocka_unit_test(relative_path_beside_a_file_without_a_directory_is_unchanged),
    };
    return cmocka_run_group_tests_name("schema", tests, NULL, NULL);
}

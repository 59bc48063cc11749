/* The first byte selects whether comments are allowed; the rest is a text. A valid text can be written and read
 * again. */
#include "fuzz.h"

#include <string.h>

#include "lib/json.h"

enum { DEPTH = 32 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct json_error error;
    if (size == 0)
        return 0;
    const char *text = (const char *)data + 1;
    enum json_form form = data[0] % 2 == 0 ? JSON_PLAIN : JSON_WITH_COMMENTS;
    struct json_object *doc = json_read(text, size - 1, DEPTH, form, &error);
    PROMISE((doc == NULL) == (error.why != NULL));
    if (doc == NULL)
        return 0;
    PROMISE(json_line_of(text, size - 1, "/a/0/b") >= 1);
    const char *written = json_object_to_json_string_ext(doc, JSON_C_TO_STRING_PLAIN);
    struct json_object *again = json_read(written, strlen(written), DEPTH, JSON_PLAIN, &error);
    PROMISE(again != NULL && json_object_equal(doc, again));
    json_object_put(again);
    json_object_put(doc);
    return 0;
}

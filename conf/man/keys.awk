# Turns `taskproxy --print-tables` into the reference of all keys in taskproxy.json(5).
#
# A file begins with a line of two fields: the title of its section and the pointer to its object. The rows of its tables
# follow; schema.h lists their fields. Each table becomes one subsection, under the pointer that error messages use;
# a table that several keys share is printed once.

BEGIN {
    FS = "\t"
    split("string account path secret duration size int bool enum pointer strings secrets pointers scalars object list map map_text map_secret", types, " ")
    split("string|name or number|path|path|duration|size|whole number|true or false|one of|pointer|list of strings|list of paths|" \
          "pointer or list of pointers|list of strings, whole numbers, true, false and null|object|list of objects|" \
          "objects by name|strings by name|paths by name", texts, "|")
    for (i in types)
        text_of[types[i]] = texts[i]
}

# No line begins with text of the program, so none looks like a request of roff.
function roff(text) {
    gsub(/\\/, "\\e", text)
    gsub(/-/, "\\-", text)
    gsub(/'/, "\\(aq", text)
    gsub(/\^/, "\\(ha", text)
    return text
}

# A number in the largest unit that loses nothing; `units` is "FACTOR NAME ..." with the largest first.
function with_unit(number, units,    n, unit, i) {
    n = split(units, unit, " ")
    for (i = 1; i < n - 1 && (number == 0 || number % unit[i] != 0); i += 2)
        ;
    return number / unit[i] unit[i + 1]
}

function value(number, type) {
    if (type == "duration")
        return with_unit(number, "86400000 d 3600000 h 60000 m 1000 s 1 ms")
    if (type == "size")
        return with_unit(number, "1073741824 GiB 1048576 MiB 1024 KiB 1 B")
    return sprintf("%d", number)
}

function bounds(type, min, max) {
    if (min == 0 && max == 0 || type == "secret")
        return ""
    if (type ~ /^(duration|size|int)$/)
        return " from " value(min, type) " to " value(max, type)
    return ", of " (min > 0 ? min " to " : "at most ") max (type ~ /^(string|account)$/ ? " characters" : " members")
}

function quoted(words) {
    gsub(/\|/, "\", \"", words)
    return " \"" roff(words) "\""
}

NF == 2 {
    print ".SH " $1
    split("", pointers)
    pointers[0] = $2
    table = -1
    next
}

$1 != table {
    table = $1
    print ".SS " roff(pointers[table] == "" ? "/" : pointers[table])
}

{
    name = $2; type = $3; nullable = $4; min = $5; max = $6; words = $7; fallback = $8; inner = $9; help = $10
    if (inner != "" && !(inner in pointers))
        pointers[inner] = pointers[table] "/" name (type == "map" ? "/NAME" : type == "list" ? "/N" : "")
    about = text_of[type] (type == "enum" ? quoted(words) : bounds(type, min, max))
    if (nullable)
        about = about ", or null"
    if (inner != "")
        about = about ", see " roff(pointers[inner])
    about = about (fallback == "" ? "; required" : "; default " roff(fallback))
    print ".TP\n\\fB" roff(name) "\\fR: " about "\n\\&" roff(help)
}

# Unit tests, included by the Makefile: one program for each tests/unit/test_*.c. All of them load the sanitizer build's
# objects as one shared library, so a change in fcgi/ links one library and not every program.
# `make unit` builds and runs them all; `make unit SANITIZE=` does so without the sanitizers, which qemu does not run.

UNIT_SOURCES  := $(wildcard tests/unit/test_*.c)
UNIT_PROGRAMS := $(UNIT_SOURCES:tests/unit/%.c=build/asan/unit/%)
UNIT_OBJECTS  := $(filter-out build/asan/main.o,$(ASAN_OBJECTS))

unit:
	$(INSTALL) build unit
	$(AGAIN) unit-programs
	@tests/unit/run-unit $(UNIT_PROGRAMS)

UNIT_LIBRARY  := build/asan/libtaskproxy.so

$(UNIT_LIBRARY): $(UNIT_OBJECTS)
	@echo '  LD   $@'
	@$(CC) $(ASAN) -shared -o $@ $^ $(LIBS)

build/asan/unit/%: tests/unit/%.c | $(UNIT_LIBRARY)
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(CPPFLAGS) $(ASAN) $(PKG_CFLAGS) -MMD -MP -MF $(@D)/.$(@F).d -o $@ $< \
	    $(UNIT_LIBRARY) -Wl,-rpath,'$$ORIGIN/..' $(LIBS) -lcmocka

-include $(wildcard build/asan/unit/.*.d)
.PHONY: unit

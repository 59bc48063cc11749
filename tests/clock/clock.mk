# The clock that tests own (clock.c), built along with the sanitizer build, whose tests load it.

build/asan/clock.so: tests/clock/clock.c
	@mkdir -p $(@D)
	@echo '  CC   $@'
	@$(CC) $(CPPFLAGS) $(CFLAGS) -shared -fPIC -o $@ $<

build/asan/taskproxy: | build/asan/clock.so

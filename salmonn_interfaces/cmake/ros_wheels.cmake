# Lets a plain `pip install` find the ROS packages that pip put into its build environment. Not used by colcon.
include_guard(GLOBAL)

# 1. The prefix that holds ament_package holds all of them.
find_package(Python3 REQUIRED COMPONENTS Interpreter)
execute_process(
  COMMAND "${Python3_EXECUTABLE}" -c
    "import ament_package, pathlib; print(pathlib.Path(ament_package.__file__).resolve().parents[4])"
  OUTPUT_VARIABLE ros_prefix OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
message(STATUS "ROS wheels under ${ros_prefix}")
list(PREPEND CMAKE_PREFIX_PATH "${ros_prefix}")
if(DEFINED ENV{AMENT_PREFIX_PATH})
  set(ENV{AMENT_PREFIX_PATH} "${ros_prefix}:$ENV{AMENT_PREFIX_PATH}")
else()
  set(ENV{AMENT_PREFIX_PATH} "${ros_prefix}")
endif()

# 2. Some wheels' targets name a Python include directory of the machine that built them; CMake refuses a missing one.
function(salmonn_drop_foreign_includes)
  get_directory_property(targets IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(directories)
      list(FILTER directories EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${directories}")
    endif()
  endforeach()
endfunction()
cmake_language(DEFER CALL salmonn_drop_foreign_includes)

# 3. Python uses the C side alone. The C++ side is two thirds of the compiler's work, and no header of it is installed.
macro(salmonn_leave_out_cpp variable access)
  if("${access}" STREQUAL "MODIFIED_ACCESS" AND "${${variable}}" MATCHES "_cpp:")
    list(FILTER ${variable} EXCLUDE REGEX "_cpp:")
  endif()
endmacro()
variable_watch(AMENT_EXTENSIONS_rosidl_generate_idl_interfaces salmonn_leave_out_cpp)
